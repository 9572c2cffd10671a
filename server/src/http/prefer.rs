//! `Prefer` (RFC 7240): whether a writer has use for the value.

use axum::http::{HeaderMap, HeaderName};

/// What is asked, and told to have been done.
pub const MINIMAL: &str = "return=minimal";

/// Tells that it was.
pub const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Whether an answer is to be without the value. Of several that say how to return, the first counts.
pub fn is_minimal(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let mut preferences = values
        .flat_map(|value| value.split(','))
        .filter_map(|text| {
            let (text, _parameters) = text.split_once(';').unwrap_or((text, ""));
            let (name, value) = text.split_once('=')?;
            let is_return = name.trim().eq_ignore_ascii_case("return");
            is_return.then(|| value.trim().trim_matches('"'))
        });
    preferences.next() == Some("minimal")
}
