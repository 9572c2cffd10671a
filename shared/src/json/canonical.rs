//! Values as texts that are the same where the values are, by [`super::is_same`].

use std::fmt::Write as _;

use serde_json::Value as Json;

pub(super) fn canonical(json: &Json) -> String {
    let mut text = String::new();
    write_canonical(json, &mut text);
    text
}

fn write_canonical(json: &Json, text: &mut String) {
    match json {
        Json::Null => text.push('n'),
        Json::Bool(value) => text.push(if *value { 't' } else { 'f' }),
        Json::Number(number) => match (number.as_i128(), number.as_f64()) {
            (None, Some(float)) if float.fract() == 0.0 => {
                // To a string it never fails.
                let _written = write!(text, "{:.0}", float + 0.0);
            }
            _ => text.push_str(&number.to_string()),
        },
        Json::String(string) => write_string(string, text),
        Json::Array(values) => {
            text.push('[');
            for value in values {
                write_canonical(value, text);
                text.push(',');
            }
            text.push(']');
        }
        Json::Object(object) => {
            text.push('{');
            for (key, value) in object {
                write_string(key, text);
                write_canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
    }
}

/// Behind its length, so that nothing in it can be taken for what comes next.
fn write_string(string: &str, text: &mut String) {
    text.push_str(&string.len().to_string());
    text.push('"');
    text.push_str(string);
}
