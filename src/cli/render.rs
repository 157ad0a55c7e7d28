//! Tables for people: no borders, escaped, as wide as the terminal.

use super::ui::{Ui, clean};
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

/// A table without borders. Off a terminal it is as wide as its content.
pub fn table(ui: Ui, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Set here: a table that is told below to forget the terminal forgets its width, too.
    if let Some(width) = terminal_width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
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

/// Columns of the terminal that stdout is.
pub fn terminal_width() -> Option<u16> {
    Table::new().width().filter(|width| *width > 0)
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

/// Text from outside for Nagios: what follows a bar is performance data to it.
pub fn for_nagios(text: &str) -> String {
    clean(text).replace('|', "¦")
}

/// The table's lines, without trailing blanks, each ending in a line feed.
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
