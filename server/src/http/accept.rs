//! What a client can make use of: `Accept` and `Accept-Encoding` (RFC 9110, section 12.5).

use axum::http::{HeaderMap, HeaderName, header};

use super::problem::{Code, Problem};

/// A value.
pub const JSON: &str = "application/json";
/// A document's own bytes.
pub const AUTOMERGE: &str = "application/vnd.automerge";

/// Weights are told in thousandths: they have three digits at most.
const MOST_WEIGHT: u16 = 1000;

/// The one of these media types that the client likes best; of equals the first. Without `Accept` that is any.
///
/// Of a media range's parameters only the weight counts, since what is made here has none.
pub fn media_type(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, Problem> {
    let ranges = Preferences::of(headers, &header::ACCEPT);
    let weight = |offered: &str| {
        let (kind, _) = offered.split_once('/').unwrap_or_default();
        let any_of_kind = format!("{kind}/*");
        // What is more specific goes before what is less.
        let named = [offered, &any_of_kind, "*/*"];
        named.into_iter().find_map(|name| ranges.weight(name))
    };
    if ranges.0.is_empty() {
        return offered.first().copied().ok_or_else(|| refusal(offered));
    }
    let mut best = None;
    for offered in offered {
        let weight = weight(offered).unwrap_or(0);
        if weight > best.map_or(0, |(weight, _)| weight) {
            best = Some((weight, *offered));
        }
    }
    best.map(|(_, offered)| offered)
        .ok_or_else(|| refusal(offered))
}

fn refusal(offered: &[&str]) -> Problem {
    let detail = format!("there is only {}", offered.join(" and "));
    Problem::new(Code::NotAcceptable, detail)
}

/// Whether the client would rather have an answer compressed by this coding than as it is.
pub fn prefers_coding(headers: &HeaderMap, coding: &str) -> bool {
    let codings = Preferences::of(headers, &header::ACCEPT_ENCODING);
    let weight = |name: &str| codings.weight(name).or_else(|| codings.weight("*"));
    let compressed = weight(coding).unwrap_or(0);
    // What is not named is as good as any, but no better than what is.
    let plain = codings.weight("identity").unwrap_or(0);
    compressed > 0 && compressed >= plain
}

/// What a header lists, each with its weight. What can't be read is left out.
struct Preferences(Vec<(String, u16)>);

impl Preferences {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Self {
        let values = headers.get_all(name).into_iter();
        let values = values.filter_map(|value| value.to_str().ok());
        let listed = values.flat_map(|value| value.split(','));
        let read = listed.filter_map(|listed| {
            let mut parts = listed.split(';').map(str::trim);
            let name = parts.next().filter(|name| !name.is_empty())?;
            let mut weight = Some(MOST_WEIGHT);
            for part in parts {
                if let Some((name, value)) = part.split_once('=')
                    && name.trim().eq_ignore_ascii_case("q")
                {
                    weight = thousandths(value.trim());
                }
            }
            Some((name.to_ascii_lowercase(), weight?))
        });
        Self(read.collect())
    }

    fn weight(&self, name: &str) -> Option<u16> {
        let mut named = self.0.iter().filter(|(listed, _)| listed == name);
        named.next().map(|(_, weight)| *weight)
    }
}

/// `0.5`: a digit, and up to three behind the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    let part: u16 = format!("{part:0<3}").parse().ok().filter(|_| is_number)?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(MOST_WEIGHT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: Option<&str>) -> HeaderMap {
        let values = value.map(|value| (name, value.parse().expect("a value")));
        values.into_iter().collect()
    }

    #[test]
    fn the_best_of_what_is_accepted_is_chosen() {
        let chosen = |accept: Option<&str>| {
            let chosen = media_type(&headers(header::ACCEPT, accept), &[JSON, AUTOMERGE]);
            chosen.unwrap_or("406")
        };
        for accept in [
            None,
            Some("*/*"),
            Some("application/*"),
            Some("text/html, */*;q=0.1"),
            Some("application/vnd.automerge, application/json"),
            Some("application/vnd.automerge;q=0.5, */*;q=0.8"),
            Some("Application/JSON; charset=utf-8; q=0.2"),
            Some("application/vnd.automerge;q=0, */*"),
            // Nothing of this can be read.
            Some(", ;q=1, text/html;q=2"),
        ] {
            assert_eq!(chosen(accept), JSON, "{accept:?}");
        }
        for accept in [
            "application/vnd.automerge",
            "application/vnd.automerge, application/json;q=0.9",
            "application/json;q=0, application/*",
            "application/json;q=0.999, APPLICATION/vnd.automerge;Q=1.000",
        ] {
            assert_eq!(chosen(Some(accept)), AUTOMERGE, "{accept}");
        }
        for accept in [
            "text/html",
            "application/json;q=0",
            "*/*;q=0",
            "text/*;q=0.5",
        ] {
            assert_eq!(chosen(Some(accept)), "406", "{accept}");
        }
    }

    #[test]
    fn a_coding_is_used_where_it_is_liked() {
        let prefers =
            |value: Option<&str>| prefers_coding(&headers(header::ACCEPT_ENCODING, value), "gzip");
        for value in [
            "gzip",
            "br, gzip;q=0.1",
            "*",
            "gzip, identity;q=0.5",
            "GZIP",
        ] {
            assert!(prefers(Some(value)), "{value}");
        }
        assert!(!prefers(None));
        for value in [
            "",
            "br",
            "gzip;q=0",
            "*, gzip;q=0",
            "identity, gzip;q=0.5",
            "identity;q=0",
        ] {
            assert!(!prefers(Some(value)), "{value}");
        }
    }

    #[test]
    fn weights_are_read_as_the_rfc_writes_them() {
        for (text, weight) in [
            ("0", 0),
            ("1", 1000),
            ("0.5", 500),
            ("0.001", 1),
            ("1.000", 1000),
            ("0.", 0),
        ] {
            assert_eq!(thousandths(text), Some(weight), "{text}");
        }
        for text in ["", "2", "1.001", "0.1234", "-0", "0.x", ".5", "0.+1"] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }
}
