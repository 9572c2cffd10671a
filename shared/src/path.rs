//! Addresses inside a document: JSON Pointers (RFC 6901).

use std::fmt;

use automerge::{AutomergeError, ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, Value};

use crate::json::MOST_LEVELS;

/// Most steps of a path that is read. An object lies in at most [`MOST_LEVELS`] others, so a value is that many steps and
/// one from the root; one step more is asked for by who looks whether something is there.
pub const MOST_STEPS: usize = MOST_LEVELS + 2;

/// Steps from the root to a value: keys of maps and positions of lists.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Path(Vec<String>);

/// What is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePathError {
    /// It is neither empty nor begins with a slash.
    #[error("a path is empty or begins with /")]
    NoSlash,
    /// It leads deeper than any document goes.
    #[error("a path has at most {MOST_STEPS} steps")]
    TooLong,
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
        // Before they are collected: a step takes a byte of the text, and tens in memory.
        if steps.split('/').nth(MOST_STEPS).is_some() {
            return Err(ParsePathError::TooLong);
        }
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

    /// Where the path leads in a document, now or as of `heads`. What the last step names need not be there, all before
    /// it must.
    pub fn find<D: ReadDoc>(
        &self,
        document: &D,
        heads: Option<&[ChangeHash]>,
    ) -> Result<Place, NoPlace> {
        find(document, &self.0, heads, &mut 0)
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

impl<S: Into<String>> FromIterator<S> for Path {
    fn from_iter<I: IntoIterator<Item = S>>(steps: I) -> Self {
        Self(steps.into_iter().map(Into::into).collect())
    }
}

/// [`Path::find`] of steps that need not be a path's own. In proportion to their number and that of the elements of
/// lists on the way, which are added to `counted`: no path is made, but for what is told of a step that leads nowhere.
pub(crate) fn find<D: ReadDoc, S: AsRef<str>>(
    document: &D,
    steps: &[S],
    heads: Option<&[ChangeHash]>,
    counted: &mut usize,
) -> Result<Place, NoPlace> {
    let mut object = (ROOT, ObjType::Map);
    for (index, step) in steps.iter().enumerate() {
        let at = || steps.iter().take(index + 1).map(AsRef::as_ref).collect();
        let prop =
            prop(document, &object, heads, step.as_ref(), counted).map_err(|miss| match miss {
                Miss::NotWithin => NoPlace::NotWithin {
                    at: steps.iter().take(index).map(AsRef::as_ref).collect(),
                },
                Miss::NotAPosition => NoPlace::NotAPosition { at: at() },
                Miss::Nothing => NoPlace::Nothing { at: at() },
            })?;
        if index + 1 == steps.len() {
            let (object, _) = object;
            return Ok(Place::In { object, prop });
        }
        let value = match heads {
            Some(heads) => document.get_at(&object.0, prop, heads)?,
            None => document.get(&object.0, prop)?,
        };
        object = match value {
            Some((Value::Object(kind), id)) => (id, kind),
            Some((Value::Scalar(_), _)) => return Err(NoPlace::NotWithin { at: at() }),
            None => return Err(NoPlace::Nothing { at: at() }),
        };
    }
    Ok(Place::Root)
}

/// A step as JSON Pointers write it.
pub fn escaped(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// Why a step is nothing in an object.
enum Miss {
    /// It is a text.
    NotWithin,
    /// It is a list, and the step no position.
    NotAPosition,
    /// It is a list that ends before.
    Nothing,
}

/// What a step is in an object.
fn prop<D: ReadDoc>(
    document: &D,
    (object, kind): &(ObjId, ObjType),
    heads: Option<&[ChangeHash]>,
    step: &str,
    counted: &mut usize,
) -> Result<Prop, Miss> {
    match kind {
        ObjType::Map | ObjType::Table => Ok(Prop::Map(step.to_owned())),
        ObjType::Text => Err(Miss::NotWithin),
        ObjType::List => {
            let length = match heads {
                Some(heads) => document.length_at(object, heads),
                None => document.length(object),
            };
            *counted = counted.saturating_add(length);
            let position = position(step, length).ok_or(Miss::NotAPosition)?;
            if position > length {
                return Err(Miss::Nothing);
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

    #[test]
    fn a_path_is_no_longer_than_any_that_leads_somewhere() {
        let most = Path::parse(&"/a".repeat(MOST_STEPS)).map(|path| path.steps().len());
        assert_eq!(most, Ok(MOST_STEPS));
        for pointer in ["/a".repeat(MOST_STEPS + 1), "/".repeat(8 << 20)] {
            assert_eq!(Path::parse(&pointer), Err(ParsePathError::TooLong));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(steps in proptest::collection::vec(".*", 0..5)) {
            let path = Path(steps);
            prop_assert_eq!(Path::parse(&path.to_string()), Ok(path));
        }
    }
}
