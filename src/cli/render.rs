//! Tables for people: no borders, escaped, as wide as the terminal.

use super::ui::{Ui, clean};
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

/// A table without borders. Off a terminal it is as wide as its content.
pub fn table(ui: Ui, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    if ui.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if !header.is_empty() {
        table.set_header(header.iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
    }
    table
}

/// A cell with text from outside.
pub fn cell(text: &str) -> Cell {
    Cell::new(clean(text))
}

/// A cell that stands out.
pub fn tinted(text: &str, color: Color) -> Cell {
    cell(text).fg(color)
}

/// Clean text between escapes for `color` (a number of SGR), where there is colour.
pub fn paint(ui: Ui, color: &str, text: &str) -> String {
    if ui.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The table's lines, without trailing blanks, each ending in a line feed.
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
