//! Streams, colour, and the escaping of hostile text. stdout carries the result and nothing else.

use super::exit::Exit;
use indicatif::{MultiProgress, ProgressDrawTarget};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The part of the terminal that bars own. Everything else on stderr goes above it, see [`above_bars`].
pub static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));

/// Whether a result could not be written.
static LOST: AtomicBool = AtomicBool::new(false);

/// Write whole lines to stderr without tearing a bar.
pub fn above_bars(text: &str) -> io::Result<()> {
    BARS.suspend(|| io::stderr().lock().write_all(text.as_bytes()))
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorWhen {
    /// Whether to colour a stream.
    pub fn applies(self, terminal: bool) -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if set("NO_COLOR") => false,
            Self::Auto if std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0" && !value.is_empty()) => {
                true
            }
            Self::Auto => terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        }
    }
}

/// Where output goes.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    /// Colour on stdout.
    pub color: bool,
    /// Colour on stderr.
    pub color_err: bool,
    /// 0: result, notices and errors; 1: result and errors; 2: exit code only.
    pub quiet: u8,
}

impl Ui {
    /// From the global options.
    pub fn new(color: ColorWhen, quiet: u8) -> Self {
        Self {
            color: color.applies(io::stdout().is_terminal()),
            color_err: color.applies(io::stderr().is_terminal()),
            quiet,
        }
    }

    /// Print the result. A reader that went away has seen enough: the exit code says what was found.
    pub fn result(self, text: &str) {
        if self.quiet >= 2 {
            return;
        }
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                LOST.store(true, Ordering::Relaxed);
                let hint = "the command has done its work; make room, or send its output elsewhere";
                self.error(&format!("cannot write the result: {error}"), Some(hint));
            }
            _ => {}
        }
    }

    /// The exit code of a command whose results were to be printed: what is not delivered is not known.
    pub fn delivered(self, exit: Exit) -> Exit {
        if LOST.load(Ordering::Relaxed) && exit != Exit::Critical { Exit::Unknown } else { exit }
    }

    /// Say something in passing.
    pub fn notice(self, text: &str) {
        if self.quiet == 0 {
            self.stderr("note", "36", text);
        }
    }

    /// Warn: the result stands, something beside it went wrong.
    pub fn warning(self, text: &str) {
        if self.quiet == 0 {
            self.stderr("warning", "33", text);
        }
    }

    /// Report a failure, and the next step.
    pub fn error(self, text: &str, hint: Option<&str>) {
        if self.quiet < 2 {
            self.stderr("error", "1;31", text);
            if let Some(hint) = hint {
                self.stderr("hint", "36", hint);
            }
        }
    }

    fn stderr(self, label: &str, color: &str, text: &str) {
        let label = if self.color_err { format!("\x1b[{color}m{label}\x1b[0m") } else { label.to_owned() };
        let _ = above_bars(&format!("{label}: {}\n", clean(text)));
    }
}

/// Text that cannot move the cursor, change colours, reorder or hide what stands beside it: control characters, bidi
/// controls and invisible characters are written as `\u{…}`.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hostile(c) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Whether a character does more than stand there.
pub fn hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// JSON text, indented, with everything that [`clean`] escapes written as `\uXXXX`.
pub fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    let mut out = clean_json(&text);
    out.push('\n');
    out
}

/// JSON text with everything that [`clean`] escapes, except for line feeds, written as `\uXXXX`.
pub fn clean_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if c != '\n' && hostile(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A count with its noun.
pub fn count(number: usize, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped() {
        assert_eq!(clean("v1.0"), "v1.0");
        assert_eq!(clean("a\x1b[2Jb\r\n\u{9b}c\u{202e}"), "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{9b}c\\u{202e}");
    }

    #[test]
    fn json_stays_json_when_escaped() {
        let value = serde_json::json!({"tag": "a\u{9b}\u{202e}\u{e0041}\x7f"});
        let text = json(&value);
        assert!(!text.trim_end().chars().any(|c| c != '\n' && hostile(c)));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
