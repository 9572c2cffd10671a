//! What happens to a value, step by step, for people.

use anyhow::Context as _;
use concord_shared::path::Path;
use json_patch::PatchOperation;
use serde_json::Value as Json;

use super::terminal::{compact, cut};

/// What a text that was changed keeps of what is the same before and behind, in characters.
const CONTEXT: usize = 16;

/// Columns that each side of a change gets, however narrow the terminal is.
const LEAST_COLUMNS: usize = 12;

/// A value that changes; `None` while there is none.
#[derive(Debug, Default)]
pub struct Changing(pub Option<Json>);

/// One step.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// Where, in the document.
    pub at: String,
    /// What was there.
    pub old: Option<Json>,
    /// What is there now.
    pub new: Option<Json>,
}

impl Changing {
    /// Carries out a patch whose paths begin at `root`, which is the value's own place, and tells what that did.
    pub fn apply(&mut self, root: &Path, patch: &Json) -> anyhow::Result<Vec<Step>> {
        const NO_PATCH: &str = "the server's answer is no JSON Patch of what it sent before";
        let patch: Vec<PatchOperation> = serde_json::from_value(patch.clone()).context(NO_PATCH)?;
        let mut steps = Vec::new();
        for operation in patch {
            let at = operation.path().to_string();
            let is_element = self.is_in_a_list(&at);
            let found = self
                .0
                .as_ref()
                .and_then(|value| value.pointer(&at))
                .cloned();
            let (old, new) = match &operation {
                // What is at an element's place moves on.
                PatchOperation::Add(add) => {
                    (found.filter(|_| !is_element), Some(add.value.clone()))
                }
                PatchOperation::Replace(replace) => (found, Some(replace.value.clone())),
                PatchOperation::Remove(_) => (found, None),
                PatchOperation::Test(_) => continue,
                // Of what the API does not make: what is there then says enough.
                PatchOperation::Move(_) | PatchOperation::Copy(_) => (None, None),
            };
            if at.is_empty() {
                self.0.clone_from(&new);
            } else {
                let value = self.0.as_mut().context(NO_PATCH)?;
                json_patch::patch(value, std::slice::from_ref(&operation)).context(NO_PATCH)?;
            }
            let at = format!("{root}{at}");
            steps.push(Step { at, old, new });
        }
        Ok(steps)
    }

    fn is_in_a_list(&self, at: &str) -> bool {
        let parent = at.rsplit_once('/').map(|(parent, _)| parent);
        let value = self.0.as_ref().zip(parent);
        value.is_some_and(|(value, parent)| value.pointer(parent).is_some_and(Json::is_array))
    }
}

impl Step {
    /// What was there and what is there, each on one line. Of long texts what both have is left out.
    pub fn sides(&self) -> (Option<String>, Option<String>) {
        if let (Some(Json::String(old)), Some(Json::String(new))) = (&self.old, &self.new) {
            let (old, new) = apart(old, new);
            return (Some(compact(&old.into())), Some(compact(&new.into())));
        }
        (
            self.old.as_ref().map(compact),
            self.new.as_ref().map(compact),
        )
    }

    /// What happened, on one line, which fits into so many columns as long as the path does.
    pub fn line(&self, columns: Option<usize>) -> String {
        let at = if self.at.is_empty() {
            "the document"
        } else {
            &self.at
        };
        let short = |text: String, sides: usize| match columns {
            Some(columns) => {
                let room = columns.saturating_sub(at.chars().count() + 10) / sides;
                cut(&text, room.max(LEAST_COLUMNS)).into_owned()
            }
            None => text,
        };
        match self.sides() {
            (Some(old), Some(new)) => format!("~ {at}  {} → {}", short(old, 2), short(new, 2)),
            (Some(old), None) => format!("- {at}  {}", short(old, 1)),
            (None, Some(new)) => format!("+ {at}  {}", short(new, 1)),
            (None, None) => format!("~ {at}"),
        }
    }
}

/// Two texts without most of what they begin and end with alike.
fn apart(old: &str, new: &str) -> (String, String) {
    let [old, new] = [old, new].map(|text| text.chars().collect::<Vec<char>>());
    let same =
        |pairs: &mut dyn Iterator<Item = (&char, &char)>| pairs.take_while(|(a, b)| a == b).count();
    let before = same(&mut old.iter().zip(&new));
    let most = old.len().min(new.len()) - before;
    let behind = same(&mut old.iter().rev().zip(new.iter().rev())).min(most);
    let middle = |text: &[char]| {
        let from = before.saturating_sub(CONTEXT);
        let to = text.len() - behind.saturating_sub(CONTEXT);
        let dots = |is_cut| if is_cut { "…" } else { "" };
        let kept: String = text.iter().take(to).skip(from).collect();
        format!("{}{kept}{}", dots(from > 0), dots(to < text.len()))
    };
    (middle(&old), middle(&new))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_patch_does_is_told_with_what_was_there() {
        let root = Path::parse("/board").expect("a path");
        let mut changing = Changing(Some(json!({ "list": [1, 2], "name": "a", "gone": {} })));
        let patch = json!([
            { "op": "add", "path": "/list/0", "value": 0 },
            { "op": "replace", "path": "/list/2", "value": 3 },
            { "op": "add", "path": "/name", "value": "b" },
            { "op": "remove", "path": "/gone" },
        ]);
        let steps = changing.apply(&root, &patch).expect("carried out");
        let lines: Vec<_> = steps.iter().map(|step| step.line(None)).collect();
        let expected = [
            "+ /board/list/0  0",
            "~ /board/list/2  2 → 3",
            r#"~ /board/name  "a" → "b""#,
            "- /board/gone  {}",
        ];
        assert_eq!(lines, expected);
        assert_eq!(changing.0, Some(json!({ "list": [0, 1, 3], "name": "b" })));
        // All of it, and what is none.
        let gone = json!([{ "op": "remove", "path": "" }]);
        changing.apply(&root, &gone).expect("carried out");
        assert_eq!(changing.0, None);
        for bad in [patch, json!([{ "op": "jump" }]), json!({})] {
            changing.apply(&root, &bad).expect_err("is none");
        }
    }

    #[test]
    fn of_long_texts_what_differs_is_shown() {
        let same = "x".repeat(100);
        let (old, new) = apart(&format!("{same}old{same}"), &format!("{same}newer{same}"));
        let context = "x".repeat(CONTEXT);
        assert_eq!(old, format!("…{context}old{context}…"));
        assert_eq!(new, format!("…{context}newer{context}…"));
        let parts = |old, new| apart(old, new);
        assert_eq!(parts("aaa", "aa"), ("aaa".to_owned(), "aa".to_owned()));
        assert_eq!(parts("", "é"), (String::new(), "é".to_owned()));
    }

    #[test]
    fn a_line_fits_unless_the_path_does_not() {
        let step = Step {
            at: "/a".to_owned(),
            old: Some(json!("x".repeat(500))),
            new: Some(json!("y".repeat(500))),
        };
        let line = step.line(Some(80));
        assert!(line.chars().count() <= 80, "{line}");
        assert!(line.contains("x…") && line.contains("y…"), "{line}");
    }
}
