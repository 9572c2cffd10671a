//! Addresses inside a document: JSON Pointers (RFC 6901).

use std::fmt;

use automerge::{AutomergeError, ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, Value};

/// Steps from the root to a value: keys of maps and positions of lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Path(Vec<String>);

/// What is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePathError {
    /// It is neither empty nor begins with a slash.
    #[error("a path is empty or begins with /")]
    NoSlash,
    /// `~` stands before 0 (for `~`) or 1 (for `/`).
    #[error("{step:?} has a ~ that is neither ~0 nor ~1")]
    BadEscape {
        /// The step, as it was written.
        step: String,
    },
}

/// Where a path leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// The document itself.
    Root,
    /// A key or position within an object, where something may or may not be.
    In {
        /// The map or list.
        object: ObjId,
        /// A key of the map; or a position of the list, at most its length.
        prop: Prop,
    },
}

/// Why a path leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    /// There is nothing at the path up to and with this step.
    #[error("there is nothing at {at}")]
    Nothing {
        /// The path to what is missing.
        at: Path,
    },
    /// The path goes on, in what is no map and no list.
    #[error("{at} is no object and no array")]
    NotWithin {
        /// The path to it.
        at: Path,
    },
    /// A list has positions: numbers without leading zeros, and `-` behind the last.
    #[error("{at} is no position in an array")]
    NotAPosition {
        /// The path with the step.
        at: Path,
    },
    /// Automerge could not say.
    #[error(transparent)]
    Automerge(Box<AutomergeError>),
}

impl From<AutomergeError> for NoPlace {
    fn from(error: AutomergeError) -> Self {
        Self::Automerge(Box::new(error))
    }
}

impl Path {
    /// The root's.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Reads a JSON Pointer.
    pub fn parse(pointer: &str) -> Result<Self, ParsePathError> {
        let Some(steps) = pointer.strip_prefix('/') else {
            return match pointer {
                "" => Ok(Self::root()),
                _ => Err(ParsePathError::NoSlash),
            };
        };
        steps
            .split('/')
            .map(unescaped)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The steps, unescaped.
    pub fn steps(&self) -> &[String] {
        &self.0
    }

    /// This path and one step more.
    #[must_use]
    pub fn with(&self, step: impl Into<String>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }

    /// This path, and from there another.
    #[must_use]
    pub fn join(&self, further: &Self) -> Self {
        Self(self.0.iter().chain(&further.0).cloned().collect())
    }

    /// Whether the other path leads to something that holds this.
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }

    /// Where the path leads in a document, now or as of `heads`. What the last step names need not be there, all before
    /// it must.
    pub fn find<D: ReadDoc>(
        &self,
        document: &D,
        heads: Option<&[ChangeHash]>,
    ) -> Result<Place, NoPlace> {
        let Some((last, before)) = self.0.split_last() else {
            return Ok(Place::Root);
        };
        let mut at = Self::root();
        let mut object = (ROOT, ObjType::Map);
        for step in before {
            let prop = prop(document, &object, heads, &at, step)?;
            at = at.with(step);
            let value = match heads {
                Some(heads) => document.get_at(&object.0, prop, heads)?,
                None => document.get(&object.0, prop)?,
            };
            object = match value {
                Some((Value::Object(kind), id)) => (id, kind),
                Some((Value::Scalar(_), _)) => return Err(NoPlace::NotWithin { at }),
                None => return Err(NoPlace::Nothing { at }),
            };
        }
        let prop = prop(document, &object, heads, &at, last)?;
        let (object, _) = object;
        Ok(Place::In { object, prop })
    }

    /// What is where the path leads, now or as of `heads`; `None` if nothing is.
    pub fn value<'d, D: ReadDoc>(
        &self,
        document: &'d D,
        heads: Option<&[ChangeHash]>,
    ) -> Result<Option<(Value<'d>, ObjId)>, NoPlace> {
        Ok(match (self.find(document, heads)?, heads) {
            (Place::Root, _) => Some((Value::Object(ObjType::Map), ROOT)),
            (Place::In { object, prop }, Some(heads)) => document.get_at(object, prop, heads)?,
            (Place::In { object, prop }, None) => document.get(object, prop)?,
        })
    }
}

/// A step as JSON Pointers write it.
pub fn escaped(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// What a step is in an object.
fn prop<D: ReadDoc>(
    document: &D,
    (object, kind): &(ObjId, ObjType),
    heads: Option<&[ChangeHash]>,
    at: &Path,
    step: &str,
) -> Result<Prop, NoPlace> {
    match kind {
        ObjType::Map | ObjType::Table => Ok(Prop::Map(step.to_owned())),
        ObjType::Text => Err(NoPlace::NotWithin { at: at.clone() }),
        ObjType::List => {
            let length = match heads {
                Some(heads) => document.length_at(object, heads),
                None => document.length(object),
            };
            let position = position(step, length);
            let position = position.ok_or_else(|| NoPlace::NotAPosition { at: at.with(step) })?;
            if position > length {
                return Err(NoPlace::Nothing { at: at.with(step) });
            }
            Ok(Prop::Seq(position))
        }
    }
}

/// As RFC 6901 has it.
fn position(step: &str, length: usize) -> Option<usize> {
    if step == "-" {
        return Some(length);
    }
    let is_plain = step.bytes().all(|byte| byte.is_ascii_digit());
    let is_leading = step.len() > 1 && step.starts_with('0');
    if !is_plain || is_leading || step.is_empty() {
        return None;
    }
    // A number that is too large for this is larger than any list.
    Some(step.parse().unwrap_or(usize::MAX))
}

fn unescaped(step: &str) -> Result<String, ParsePathError> {
    let mut out = String::with_capacity(step.len());
    let mut rest = step;
    while let Some((before, after)) = rest.split_once('~') {
        out.push_str(before);
        let (escaped, after) = match after.as_bytes().first() {
            Some(b'0') => ('~', after.get(1..)),
            Some(b'1') => ('/', after.get(1..)),
            _ => {
                return Err(ParsePathError::BadEscape {
                    step: step.to_owned(),
                });
            }
        };
        out.push(escaped);
        rest = after.unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

impl fmt::Display for Path {
    /// As a JSON Pointer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            write!(f, "/{}", escaped(step))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use automerge::Automerge;
    use automerge::transaction::Transactable as _;
    use proptest::prelude::*;

    use super::*;

    fn found(pointer: &str) -> String {
        let mut document = Automerge::new();
        let mut tx = document.transaction();
        let list = tx.put_object(ROOT, "list", ObjType::List).unwrap();
        tx.insert(&list, 0, 7).unwrap();
        let map = tx.insert_object(&list, 1, ObjType::Map).unwrap();
        tx.put(&map, "a/b", 1).unwrap();
        let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
        tx.splice_text(&text, 0, 0, "hello").unwrap();
        tx.commit();
        match Path::parse(pointer).unwrap().find(&document, None) {
            Ok(Place::Root) => "root".to_owned(),
            Ok(Place::In { object, prop }) => {
                let there = document.get(&object, prop.clone()).unwrap();
                format!(
                    "{prop} {}",
                    there.map_or("-".to_owned(), |(value, _)| value.to_string())
                )
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_path_leads_to_a_place_or_says_how_far_it_goes() {
        assert_eq!(found(""), "root");
        assert_eq!(found("/list/0"), "0 7");
        assert_eq!(found("/list/2"), "2 -");
        assert_eq!(found("/list/-"), "2 -");
        assert_eq!(found("/list/1/a~1b"), "a/b 1");
        assert_eq!(found("/new"), "new -");
        assert_eq!(found("/"), " -");
        assert_eq!(found("/list/3"), "there is nothing at /list/3");
        assert_eq!(
            found("/list/-/x"),
            "there is nothing at /list/2".replace('2', "-")
        );
        assert_eq!(found("/no/way"), "there is nothing at /no");
        assert_eq!(found("/list/0/x"), "/list/0 is no object and no array");
        assert_eq!(found("/text/0"), "/text is no object and no array");
        for step in ["01", "x", "+1", "1.0", ""] {
            let pointer = format!("/list/{step}");
            assert_eq!(
                found(&pointer),
                format!("{pointer} is no position in an array")
            );
        }
        let huge = format!("/list/{}", "9".repeat(40));
        assert_eq!(found(&huge), format!("there is nothing at {huge}"));
    }

    #[test]
    fn what_is_no_pointer_is_named() {
        assert_eq!(Path::parse("a"), Err(ParsePathError::NoSlash));
        let bad = |step: &str| {
            Err(ParsePathError::BadEscape {
                step: step.to_owned(),
            })
        };
        assert_eq!(Path::parse("/a/~2"), bad("~2"));
        assert_eq!(Path::parse("/~"), bad("~"));
        assert_eq!(Path::parse("/~é"), bad("~é"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(steps in proptest::collection::vec(".*", 0..5)) {
            let path = Path(steps);
            prop_assert_eq!(Path::parse(&path.to_string()), Ok(path));
        }
    }
}
