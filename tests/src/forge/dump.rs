//! Everything that can be read of a document, as text that two replicas must agree on.

use std::fmt::Write as _;

use automerge::{
    AutomergeError, ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, Value,
};

/// Objects within objects; more are not looked at. Honest documents of the tests have fewer, and
/// the stack of a test has its end.
const DEEPEST: usize = 200;

/// What a document is: every value with its conflicts and ids, texts, marks and spans, from the root.
///
/// Positions are the document's: only documents of the same text encoding can be compared.
pub fn dump(document: &impl ReadDoc) -> Result<String, AutomergeError> {
    let mut out = String::new();
    object(document, &ROOT, ObjType::Map, 0, &mut out)?;
    Ok(out)
}

/// Objects that can be reached from the root, the root among them.
pub fn objects(document: &impl ReadDoc) -> Result<Vec<(ObjId, ObjType)>, AutomergeError> {
    let mut found = vec![(ROOT, ObjType::Map)];
    let mut at = 0;
    while let Some((object, kind)) = found.get(at).cloned() {
        at += 1;
        let mut values = Vec::new();
        if is_sequence(kind) {
            for index in 0..document.length(&object) {
                values.extend(document.get_all(&object, index)?);
            }
        } else {
            for key in document.keys(&object) {
                values.extend(document.get_all(&object, key)?);
            }
        }
        for (value, id) in values {
            if let Value::Object(kind) = value
                && !found.iter().any(|(known, _)| *known == id)
            {
                found.push((id, kind));
            }
        }
    }
    Ok(found)
}

/// Reads a document as it was at these heads, in every way there is, for the panics that it may
/// bring; what is read is not looked at.
pub fn read_at(document: &impl ReadDoc, heads: &[ChangeHash]) -> Result<(), AutomergeError> {
    for (object, kind) in objects(document)? {
        if !is_sequence(kind) {
            let keys: Vec<_> = document.keys_at(&object, heads).collect();
            for key in keys {
                document.get_all_at(&object, key, heads)?;
            }
            continue;
        }
        for index in 0..document.length_at(&object, heads) {
            document.get_all_at(&object, index, heads)?;
        }
        document.text_at(&object, heads)?;
        if kind == ObjType::Text {
            document.marks_at(&object, heads)?;
            let _ = document.spans_at(&object, heads)?.count();
        }
    }
    Ok(())
}

fn is_sequence(kind: ObjType) -> bool {
    matches!(kind, ObjType::List | ObjType::Text)
}

fn object(
    document: &impl ReadDoc,
    id: &ObjId,
    kind: ObjType,
    depth: usize,
    out: &mut String,
) -> Result<(), AutomergeError> {
    let _ = write!(out, "{kind}");
    if depth > DEEPEST {
        return Ok(());
    }
    if is_sequence(kind) {
        let length = document.length(id);
        let _ = write!(out, " {length} [");
        for index in 0..length {
            values(document, id, index.into(), depth, out)?;
        }
        let _ = write!(out, "] {:?}", document.text(id)?);
        if kind == ObjType::Text {
            for mark in document.marks(id)? {
                let (start, end) = (mark.start, mark.end);
                let _ = write!(out, " <{start}-{end} {} {:?}>", mark.name, mark.value);
            }
            for span in document.spans(id)? {
                spans(&span, out);
            }
        }
    } else {
        let _ = write!(out, " {{");
        let keys: Vec<_> = document.keys(id).collect();
        for key in keys {
            let _ = write!(out, "\n{:depth$}{key:?}", "");
            values(document, id, key.into(), depth, out)?;
        }
        let _ = write!(out, "}}");
    }
    Ok(())
}

fn values(
    document: &impl ReadDoc,
    id: &ObjId,
    prop: Prop,
    depth: usize,
    out: &mut String,
) -> Result<(), AutomergeError> {
    let chosen = document.get(id, prop.clone())?;
    let all = document.get_all(id, prop)?;
    let _ = write!(out, " {:?}", chosen.map(|(_, id)| id.to_string()));
    for (value, id) in all {
        let _ = write!(out, " {id}=");
        match value {
            Value::Object(kind) => object(document, &id, kind, depth + 1, out)?,
            Value::Scalar(scalar) => match scalar.as_ref() {
                // Equal only to the bit; NaN too.
                ScalarValue::F64(float) => {
                    let _ = write!(out, "f{:x}", float.to_bits());
                }
                scalar => {
                    let _ = write!(out, "{scalar:?}");
                }
            },
        }
    }
    let _ = write!(out, ";");
    Ok(())
}

fn spans(span: &automerge::Span, out: &mut String) {
    match span {
        automerge::Span::Text { text, marks } => {
            let _ = write!(out, " «{text:?}");
            for (name, value) in marks.iter().flat_map(|marks| marks.iter()) {
                let _ = write!(out, " {name}={value:?}");
            }
            let _ = write!(out, "»");
        }
        automerge::Span::Block(block) => {
            let mut keys: Vec<_> = block.iter().map(|(key, _)| key).collect();
            keys.sort_unstable();
            let _ = write!(out, " block{keys:?}");
        }
    }
}
