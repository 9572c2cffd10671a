//! `concord inspect-change`: what a change claims, and why it would be refused.

use std::collections::HashSet;
use std::fs;
use std::io::{BufWriter, Read as _, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use automerge::ChangeHash;
use bytes::Bytes;
use concord_shared::change::{
    Change, Chunk, ChunkError, Container, Made, Need, ObjectKind, ObjectRef, OpRef, Place, What,
    change_hash, decode_document, parse_chunks, split_chunks,
};
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_shared::limits::Limits;

use super::offline::{DataArgs, choose};
use crate::document::admission::{self, MAX_STEPS_PER_MESSAGE, RefusalReason};
use crate::document::history::History;
use crate::document::judging::{self, Judged};
use crate::document::opening;
use crate::document::past::Steps;
use crate::document::task::Report;

/// Arguments of `concord inspect-change`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Judge the changes as if they came to this stored document now: its id or automerge: URL
    #[arg(long, value_name = "ID", conflicts_with = "after")]
    document: Option<String>,
    /// Judge them as if they came after this .automerge file's
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// Chunks as a client sends them, one or more; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Prints each change of a file: what it claims, and the verdict. Fails if one would be refused.
pub fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let bytes = if args.file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        bytes
    } else {
        fs::read(&args.file).with_context(|| format!("reading {}", args.file.display()))?
    };
    ensure!(
        !bytes.is_empty(),
        "there is nothing in {}",
        args.file.display()
    );
    let bytes = Bytes::from(bytes);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut history = match (&args.document, &args.after) {
        (None, None) => None,
        (Some(id), _) => Some(stored(&args.data, id)?),
        (None, Some(path)) => Some(of_file(path)?),
    };
    let mut refused = HashSet::new();
    let mut all_good = true;
    for chunk in split_chunks(&bytes) {
        all_good &= inspect_chunk(&mut out, chunk, history.as_mut(), &mut refused)?;
    }
    out.flush()?;
    Ok(ExitCode::from(u8::from(!all_good)))
}

/// Prints what is in a chunk, and says whether nothing of it would be refused. `refused` are the changes that
/// were before it.
fn inspect_chunk(
    out: &mut impl Write,
    chunk: Result<Bytes, ChunkError>,
    mut history: Option<&mut History>,
    refused: &mut HashSet<ChangeHash>,
) -> anyhow::Result<bool> {
    let chunk = match chunk {
        Ok(chunk) => chunk,
        Err(error) => {
            print_refused(out, error.code(), &error)?;
            return Ok(false);
        }
    };
    let limits = Limits::default();
    let changes = match parse_chunks(&chunk, &limits).and_then(|chunks| changes(&chunks)) {
        Ok(changes) => changes,
        Err(error) => {
            let hash = error.hash().unwrap_or_else(|| change_hash(&chunk));
            writeln!(out, "change       {hash}")?;
            claims(out, &chunk, Some(error.code()))?;
            print_refused(out, error.code(), &error)?;
            refused.insert(hash);
            return Ok(false);
        }
    };
    let mut good = true;
    for change in &changes {
        print(out, change)?;
        let verdict = history
            .as_mut()
            .map(|history| judged(history, change, refused));
        match verdict {
            None => writeln!(
                out,
                "verdict      good by itself; with --document or --after it is judged against a document\n"
            )?,
            Some(Ok(())) => writeln!(out, "verdict      would be admitted\n")?,
            Some(Err(reason)) if reason.is_missing_deps() => {
                writeln!(out, "verdict      would wait: {}\n", Report(&reason))?;
            }
            Some(Err(reason)) => {
                good = false;
                refused.insert(change.hash);
                print_refused(out, reason.code(), &reason)?;
            }
        }
    }
    Ok(good)
}

/// As a peer's change is judged that comes by itself.
fn judged(
    history: &mut History,
    change: &Change,
    refused: &HashSet<ChangeHash>,
) -> Result<(), RefusalReason> {
    if let Some(on) = change.deps.iter().find(|dep| refused.contains(*dep)) {
        return Err(RefusalReason::BuildsOnRefused { on: *on });
    }
    admission::judge(history, &mut Steps::new(MAX_STEPS_PER_MESSAGE), change)
}

fn print_refused(
    out: &mut impl Write,
    code: ErrorCode,
    error: &dyn std::error::Error,
) -> std::io::Result<()> {
    writeln!(out, "verdict      refused: {code}: {}\n", Report(error))
}

fn changes(chunks: &[Chunk]) -> Result<Vec<Change>, ChunkError> {
    let mut changes = Vec::new();
    for chunk in chunks {
        match chunk {
            Chunk::Change(change) => changes.push(change.clone()),
            Chunk::Document(bytes) => changes.extend(decode_document(bytes, &Limits::default())?),
        }
    }
    Ok(changes)
}

fn stored(data: &DataArgs, id: &str) -> anyhow::Result<History> {
    let opened = data.open_to_read()?;
    let id = DocumentId::parse_url(id).with_context(|| format!("{id:?} is no document id"))?;
    choose(&opened.store, &[id.to_string()])?;
    Ok(opening::open(&opened.store, &id)?.history)
}

fn of_file(path: &PathBuf) -> anyhow::Result<History> {
    let bytes = Bytes::from(fs::read(path).with_context(|| format!("reading {}", path.display()))?);
    let chunks = parse_chunks(&bytes, &Limits::unbounded())?;
    let changes: Vec<Bytes> = changes(&chunks)?.into_iter().map(|c| c.bytes).collect();
    let Judged {
        history, refused, ..
    } = judging::judge(&changes);
    for refused in refused {
        eprintln!("concord: {}: {refused}", path.display());
    }
    Ok(history)
}

fn print(out: &mut impl Write, change: &Change) -> anyhow::Result<()> {
    writeln!(out, "change       {}", change.hash)?;
    claims(out, &change.bytes, None)?;
    for need in &change.refs.needs {
        writeln!(out, "needs        {}", needs(change, need))?;
    }
    for made in &change.refs.made {
        writeln!(out, "makes        {}", makes(change, made))?;
    }
    Ok(())
}

/// An op as `counter@actor`, as Automerge writes it.
fn name(change: &Change, id: OpRef) -> String {
    let other = (id.actor as usize).checked_sub(1);
    let actor = match other {
        None => Some(&change.actor),
        Some(other) => change.refs.other_actors.get(other),
    };
    let actor = actor.map(ToString::to_string).unwrap_or_default();
    format!("{}@{actor}", id.counter)
}

fn object(change: &Change, object: ObjectRef) -> String {
    object.map_or_else(|| "the root".to_owned(), |id| name(change, id))
}

fn place(change: &Change, place: Place) -> String {
    match place {
        Place::Key(key) => match change.refs.keys.get(key as usize) {
            Some(key) => format!("at key {key:?}"),
            None => "at a key".to_owned(),
        },
        Place::Behind(None) => "at the beginning".to_owned(),
        Place::Behind(Some(id)) => format!("behind {}", name(change, id)),
        Place::Element(id) => format!("at element {}", name(change, id)),
    }
}

fn needs(change: &Change, need: &Need) -> String {
    match need {
        Need::Object(id, container) => {
            let kind = match container {
                Container::Map => "a map",
                Container::Sequence => "a list or a text",
                Container::List => "a list",
                Container::Text => "a text",
            };
            format!("object {}, {kind}", name(change, *id))
        }
        Need::Elements {
            object: of,
            first,
            count,
            replaced,
        } => {
            let purpose = if *replaced { " to replace" } else { "" };
            let first = name(change, *first);
            format!(
                "{count} element(s) from {first} on, in {}{purpose}",
                object(change, *of)
            )
        }
        Need::Preds {
            object: of,
            place: at,
            first,
            count,
        } => {
            let (of, at) = (object(change, *of), place(change, *at));
            let first = name(change, *first);
            format!("{count} predecessor(s) from {first} on, {at} of {of}")
        }
        Need::Counter(ids) => {
            let ids: Vec<String> = ids.iter().map(|id| name(change, *id)).collect();
            format!("a counter among {}", ids.join(", "))
        }
        Need::MarkOrder(begin, end) => {
            format!("{} before {}", name(change, *begin), name(change, *end))
        }
    }
}

fn makes(change: &Change, made: &Made) -> String {
    let what = match made.what {
        What::Scalar => "value",
        What::Counter => "counter",
        What::Mark => "mark boundary",
        What::Object(ObjectKind::Map) => "map",
        What::Object(ObjectKind::List) => "list",
        What::Object(ObjectKind::Text) => "text",
    };
    let first = OpRef {
        actor: 0,
        counter: made.first,
    };
    let (first, count) = (name(change, first), made.count);
    let (of, at) = (object(change, made.object), place(change, made.place));
    format!("{first}, {count} {what}(s) {at} of {of}")
}

/// What Automerge itself reads in the change, as JSON. It may panic on one that is refused; and it would take
/// all memory for one of a hundred bytes that claims billions of ops, so it is asked only where they were
/// counted before.
fn claims(out: &mut impl Write, bytes: &[u8], refused: Option<ErrorCode>) -> anyhow::Result<()> {
    let is_counted = match refused {
        None => true,
        Some(code) => matches!(
            code,
            ErrorCode::UnknownAction
                | ErrorCode::UnknownValueType
                | ErrorCode::BadValue
                | ErrorCode::BadOp
                | ErrorCode::KeyMismatch
                | ErrorCode::UnknownObject
                | ErrorCode::UnknownElement
                | ErrorCode::BadPred
                | ErrorCode::NotACounter
                | ErrorCode::BadMark
        ),
    };
    if !is_counted {
        return Ok(writeln!(
            out,
            "claims       not shown: they may be too many to read"
        )?);
    }
    let read = catch_unwind(AssertUnwindSafe(|| {
        let change = automerge::Change::from_bytes(bytes.to_vec());
        change.map(|change| serde_json::to_string_pretty(&change.decode()))
    }));
    match read {
        Ok(Ok(json)) => writeln!(out, "claims       {}", json?)?,
        Ok(Err(error)) => writeln!(out, "claims       Automerge can't read it: {error}")?,
        Err(_panic) => writeln!(out, "claims       Automerge panics on it")?,
    }
    Ok(())
}
