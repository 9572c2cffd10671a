//! Output for people, and JSON: what is in a document must not write what it likes into a terminal.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};

use console::{Style, Term, measure_text_width, truncate_str};
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use crate::plain::{Safe, steers};

/// Standard output.
pub struct Out {
    out: BufWriter<StdoutLock<'static>>,
    /// Columns of the terminal, if it is one.
    pub columns: Option<usize>,
}

impl Out {
    /// Held until this is dropped.
    pub fn lock() -> Self {
        let columns = Term::stdout().size_checked();
        Self {
            out: BufWriter::new(io::stdout().lock()),
            columns: columns.map(|(_rows, columns)| usize::from(columns)),
        }
    }

    /// Writes a line of plain text; on a terminal no more of it than fits, in one style.
    pub fn line(&mut self, text: &str, style: &Style) -> io::Result<()> {
        let text = escaped(text);
        let text = match self.columns {
            Some(columns) => cut(&text, columns),
            None => text,
        };
        writeln!(self.out, "{}", style.apply_to(text))
    }

    /// Writes JSON over several lines.
    pub fn pretty(&mut self, json: &Json) -> io::Result<()> {
        write_json(&mut self.out, json, PrettyFormatter::new())?;
        writeln!(self.out)
    }

    /// Writes JSON on one line.
    pub fn json(&mut self, json: &Json) -> io::Result<()> {
        write_json(&mut self.out, json, CompactFormatter)?;
        writeln!(self.out)
    }

    /// Writes a text as it is; on a terminal without what would steer it.
    pub fn raw(&mut self, text: &str) -> io::Result<()> {
        if !io::stdout().is_terminal() {
            return writeln!(self.out, "{text}");
        }
        let lines: Vec<_> = text.split('\n').map(escaped).collect();
        writeln!(self.out, "{}", lines.join("\n"))
    }

    /// Shows what was written so far.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Text without what steers a terminal or turns its order around: that is shown by its number.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if steers(char) {
            shown.extend(char.escape_unicode());
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown)
}

/// No more of a text than fits into so many columns.
pub fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    truncate_str(text, columns, "…")
}

/// The text, and spaces up to so many columns.
pub fn padded(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(measure_text_width(text));
    format!("{text}{}", " ".repeat(missing))
}

/// JSON on one line.
pub fn compact(json: &Json) -> String {
    let mut bytes = Vec::new();
    match write_json(&mut bytes, json, CompactFormatter) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        // Nothing that writes into memory fails.
        Err(error) => error.to_string(),
    }
}

fn write_json(out: impl Write, json: &Json, layout: impl Formatter) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(out, Safe(layout, steers));
    Ok(json.serialize(&mut serializer)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A title, a colour by the second set of control characters, a bell, a turned direction, a line of one's own.
    const HOSTILE: &str =
        "\u{1b}]0;owned\u{7} \u{9b}31m \u{7f} \u{202e}gpj\u{2066} \u{2028}\r\nroot#";

    #[test]
    fn nothing_in_a_document_steers_a_terminal() {
        let json = json!({ HOSTILE: [HOSTILE, 1, null] });
        let mut pretty = Vec::new();
        write_json(&mut pretty, &json, PrettyFormatter::new()).expect("written");
        let pretty = String::from_utf8(pretty).expect("text");
        for shown in [escaped(HOSTILE).into_owned(), compact(&json)] {
            assert!(!shown.contains(steers), "{shown:?}");
        }
        assert!(!pretty.replace('\n', "").contains(steers), "{pretty:?}");
        // And it is still the same JSON.
        for text in [pretty, compact(&json)] {
            let read: Json = serde_json::from_str(&text).expect("JSON");
            assert_eq!(read, json);
        }
    }

    #[test]
    fn harmless_text_stays_as_it_is() {
        let text = "Größe \"é\" 🦀 日本 \\";
        assert_eq!(escaped(text), text);
        let json = json!({ "a": [text, { "b": 1.5 }], "c": {} });
        assert_eq!(compact(&json), json.to_string());
    }

    #[test]
    fn text_is_cut_and_padded_by_columns() {
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(padded("日本", 6), "日本  ");
    }
}
