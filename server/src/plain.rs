//! Text that only says something: JSON and text in which nothing steers whoever reads it.
//!
//! What peers write goes to terminals, by commands, and into the audit log, which people look at by all kinds of
//! programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::ser::{CharEscape, Formatter};

/// Control characters, the second set of them too, which some terminals obey; what separates lines; and what turns the
/// direction of writing.
pub(crate) fn steers(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What [`steers`], and what can't be seen or told from another: blanks that are no blank, what has no width, what no
/// font has, what is put onto the letter before.
pub(crate) fn hides(char: char) -> bool {
    steers(char)
        || !char.is_ascii() && char.escape_debug().len() > 1
        // Letters and a pattern of dots in which nothing is drawn.
        || matches!(char, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
}

/// A layout in whose strings such characters are escaped, which is JSON like any other.
#[derive(Debug)]
pub(crate) struct Safe<F>(pub(crate) F, pub(crate) fn(char) -> bool);

macro_rules! as_in_the_layout {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method<W: ?Sized + Write>(&mut self, writer: &mut W $(, $argument: $type)*) -> io::Result<()> {
            self.0.$method(writer $(, $argument)*)
        })*
    };
}

impl<F: Formatter> Formatter for Safe<F> {
    as_in_the_layout! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
        write_char_escape(escape: CharEscape);
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, char)) = rest.char_indices().find(|(_, char)| self.1(*char)) {
            let (before, after) = rest.split_at(at);
            let mut escape = String::new();
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing into a string does not fail.
                let _written = write!(escape, "\\u{unit:04x}");
            }
            writer.write_all(before.as_bytes())?;
            writer.write_all(escape.as_bytes())?;
            rest = after.get(char.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}
