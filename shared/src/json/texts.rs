//! The difference of two texts, by words: what a person would say was changed.

use automerge::transaction::Transactable;
use automerge::{ObjId, ReadDoc, TextEncoding};
use similar::DiffOp;
use unicode_segmentation::UnicodeSegmentation as _;

use super::update::{Edit, EditError};

/// Longest text that can be a token, in bytes.
const TOKEN_BYTES: usize = 64;

/// Whether a text is something like a date, a number or a name of something: one without spaces, in ASCII. Two that
/// replace such a text at the same time mean one of theirs, and not a mixture.
pub(super) fn is_token(text: &str) -> bool {
    (1..=TOKEN_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Brings a text to another. Within a word that changed, what it begins and ends with stays.
pub(super) fn update<T: Transactable + ReadDoc>(
    edit: &mut Edit<'_, T>,
    text: &ObjId,
    from: &str,
    to: &str,
) -> Result<(), EditError> {
    if from == to {
        return Ok(());
    }
    let from: Vec<&str> = from.split_word_bounds().collect();
    let to: Vec<&str> = to.split_word_bounds().collect();
    let ops = edit.search.ops(&from, &to);
    let encoding = edit.tx.text_encoding();
    let all = |words: &[&str]| {
        words
            .iter()
            .map(|word| width(encoding, word))
            .sum::<usize>()
    };
    // From the end, so that positions before an op stay what they were.
    let mut end = all(&from);
    for op in ops.into_iter().rev() {
        let old = from.get(op.old_range()).unwrap_or_default();
        let new = to.get(op.new_range()).unwrap_or_default();
        let start = end - all(old);
        if !matches!(op, DiffOp::Equal { .. }) {
            let (old, new) = (old.concat(), new.concat());
            let (before, removed, added) = middle(&old, &new);
            let deleted = isize::try_from(width(encoding, removed)).unwrap_or(isize::MAX);
            let at = start + width(encoding, before);
            edit.work.go_on()?;
            edit.has_room(removed.chars().count() + added.chars().count())?;
            edit.tx.splice_text(text, at, deleted, added)?;
        }
        end = start;
    }
    Ok(())
}

/// How far a piece of text moves a position.
fn width(encoding: TextEncoding, text: &str) -> usize {
    match encoding {
        TextEncoding::UnicodeCodePoint => text.chars().count(),
        TextEncoding::Utf8CodeUnit => text.len(),
        TextEncoding::Utf16CodeUnit => text.encode_utf16().count(),
        TextEncoding::GraphemeCluster => text.graphemes(true).count(),
    }
}

/// What two texts begin with, and what is left of each when that and what they end with are taken away, by
/// grapheme: a letter keeps its accents.
fn middle<'a>(old: &'a str, new: &'a str) -> (&'a str, &'a str, &'a str) {
    let same = |(one, other): &(&str, &str)| one == other;
    let prefix: usize = (old.graphemes(true).zip(new.graphemes(true)))
        .take_while(same)
        .map(|(grapheme, _)| grapheme.len())
        .sum();
    let (before, old) = old.split_at(prefix);
    let (_, new) = new.split_at(prefix);
    let suffix: usize = (old.graphemes(true).rev().zip(new.graphemes(true).rev()))
        .take_while(same)
        .map(|(grapheme, _)| grapheme.len())
        .sum();
    let (old, _) = old.split_at(old.len() - suffix);
    let (new, _) = new.split_at(new.len() - suffix);
    (before, old, new)
}

#[cfg(test)]
mod tests {
    use super::middle;

    #[test]
    fn only_what_differs_within_a_word_is_replaced() {
        assert_eq!(middle("meeting", "meetings"), ("meeting", "", "s"));
        assert_eq!(middle("22", "23"), ("2", "2", "3"));
        assert_eq!(middle("aaa", "aa"), ("aa", "a", ""));
        assert_eq!(middle("e\u{301}", "e\u{300}"), ("", "e\u{301}", "e\u{300}"));
        assert_eq!(middle("", "x"), ("", "", "x"));
    }
}
