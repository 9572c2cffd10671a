//! What a command is told of when something was: a version, the beginning of its hash, or a time.

use anyhow::bail;
use concord_shared::ids::DocumentId;

use super::Client;
use crate::cli::documents::text;
use crate::cli::history::Changes;

/// Digits of a whole hash.
const DIGITS: usize = 64;

/// With fewer digits many changes have the same.
const LEAST_DIGITS: usize = 4;

/// Changes looked through at a time.
const CHANGES_PER_PAGE: usize = 1000;

/// See the module's docs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// As the API takes it.
    Exact(String),
    /// Heads, of which some are only begun.
    Short(Vec<String>),
}

/// A version, a time as RFC 3339 has it, or a date, which is its first moment; `@{…}` may stand around it.
pub fn moment(text: &str) -> Result<Moment, String> {
    let inner = text.strip_prefix("@{");
    let inner = inner.and_then(|text| text.strip_suffix('}'));
    let text = inner.unwrap_or(text);
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let is_date = text.len() == "2026-11-22".len()
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if is_date {
        return Ok(Moment::Exact(format!("{text}T00:00:00Z")));
    }
    let heads: Vec<String> = text.split('.').map(str::to_ascii_lowercase).collect();
    let are_hashes = heads.iter().all(|head| {
        let is_hex = head.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex && (LEAST_DIGITS..=DIGITS).contains(&head.len())
    });
    let is_short = heads.iter().any(|head| head.len() < DIGITS);
    if are_hashes && is_short {
        return Ok(Moment::Short(heads));
    }
    Ok(Moment::Exact(text.to_owned()))
}

impl Moment {
    /// As the API takes it. Where a hash is only begun all of the document's changes are looked through.
    pub async fn resolved(&self, client: &Client, document: &DocumentId) -> anyhow::Result<String> {
        let begun = match self {
            Self::Exact(text) => return Ok(text.clone()),
            Self::Short(heads) => heads,
        };
        let mut found: Vec<Option<String>> = vec![None; begun.len()];
        let mut pages = Changes::new(document, false);
        while let Some(page) = pages.next(client, CHANGES_PER_PAGE).await? {
            for hash in page.iter().map(|change| text(change, "hash")) {
                for (begun, found) in begun.iter().zip(&mut found) {
                    if !hash.starts_with(begun.as_str()) {
                        continue;
                    }
                    if let Some(other) = found.replace(hash.to_owned()) {
                        bail!("several changes begin with {begun}: {other}, {hash}");
                    }
                }
            }
        }
        let mut heads = Vec::new();
        for (begun, found) in begun.iter().zip(found) {
            match found {
                Some(hash) => heads.push(hash),
                None => bail!("no change of the document begins with {begun}"),
            }
        }
        Ok(heads.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_a_version_a_hash_that_is_begun_or_a_time() {
        let whole = "0f".repeat(32);
        let exact = |text: &str| Ok(Moment::Exact(text.to_owned()));
        let short = |heads: &[&str]| {
            let heads = heads.iter().map(ToString::to_string);
            Ok(Moment::Short(heads.collect()))
        };
        assert_eq!(moment(&whole), exact(&whole));
        assert_eq!(
            moment(&format!("{whole}.{whole}")),
            exact(&format!("{whole}.{whole}"))
        );
        assert_eq!(moment("2026-11-22"), exact("2026-11-22T00:00:00Z"));
        assert_eq!(moment("@{2026-11-22}"), exact("2026-11-22T00:00:00Z"));
        assert_eq!(
            moment("2026-11-22T04:10:28+01:00"),
            exact("2026-11-22T04:10:28+01:00")
        );
        assert_eq!(moment("0F3a"), short(&["0f3a"]));
        assert_eq!(
            moment(&format!("{whole}.abcdef")),
            short(&[&whole, "abcdef"])
        );
        // For the API to refuse.
        for other in ["0f3", "yesterday", "0f3a.", "@{0f3a"] {
            assert_eq!(moment(other), exact(other));
        }
        moment("").unwrap_err();
        moment("@{}").unwrap_err();
    }
}
