//! Every file of the fuzz corpora, and what the fuzzers found, goes through the same checks as under
//! the fuzzer (`tests/fuzz/checks.rs`): no panic, and quickly. A corpus that is not found fails, so
//! that the test can't pass by reading nothing.

use std::path::Path;
use std::time::{Duration, Instant};

#[cfg(test)]
#[path = "../fuzz/checks.rs"]
mod checks;

use concord_tests::forge;

#[cfg(test)]
/// Runs each file; the slowest input of the corpora takes some ten milliseconds without optimisation.
fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        let start = Instant::now();
        check(&input);
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs(2),
            "{}: {took:?}",
            path.display()
        );
        files += 1;
    }
    assert!(files >= 10, "{} has {files} files", folder.display());
}

#[test]
fn wire() {
    run("wire", checks::wire);
}

#[test]
fn chunks() {
    run("chunks", checks::chunks);
}

#[test]
fn sync_session() {
    run("sync_session", checks::sync_session);
}

#[test]
fn admission() {
    run("admission", checks::admission);
}

/// Refusals that a change can meet with whose framing is valid, and kinds of ops that can be admitted.
#[cfg(test)]
const REACHED: [&str; 38] = [
    "action 0 at an element",
    "action 0 at an element, inserted",
    "action 0 at a key",
    "action 1 at an element",
    "action 1 at an element, inserted",
    "action 1 at a key",
    "action 2 at an element",
    "action 2 at an element, inserted",
    "action 2 at a key",
    "action 3 at an element",
    "action 3 at a key",
    "action 4 at an element",
    "action 4 at an element, inserted",
    "action 4 at a key",
    "action 5 at an element",
    "action 5 at a key",
    "action 7 at an element, inserted",
    "bad-change",
    "bad-chunk",
    "bad-mark",
    "bad-op",
    "bad-pred",
    "bad-value",
    "builds-on-refused",
    "change-too-large",
    "duplicate-seq",
    "forked-actor",
    "key-mismatch",
    "not-a-counter",
    "not-in-past",
    "pending-limit",
    "seq-not-next",
    "start-op-too-high",
    "start-op-too-low",
    "unknown-action",
    "unknown-element",
    "unknown-object",
    "unknown-value-type",
];

/// So that the corpus can't come to nothing unseen.
#[test]
fn the_corpus_of_admission_reaches_all_refusals_and_ops() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/admission");
    let mut reached = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let input = std::fs::read(entry.unwrap().path()).unwrap();
        reached.append(&mut checks::admission::reached(&input));
    }
    let missing: Vec<_> = REACHED
        .iter()
        .filter(|what| !reached.contains(**what))
        .collect();
    assert!(missing.is_empty(), "{missing:?} of {reached:?}");
}

/// Writes the seeds that the fuzzers start from: the golden frames, changes and documents with every
/// kind of op, a conversation of two replicas. Files that are there are left as they are.
#[test]
#[ignore = "writes files"]
fn write_seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let write = |target: &str, name: String, bytes: &[u8]| {
        let path = folder.join(target).join(name);
        if !path.exists() {
            std::fs::write(path, bytes).unwrap();
        }
    };
    let golden = include_str!("../../shared/tests/golden/automerge-repo-2.5.6.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    for (n, frame) in golden["frames"].as_array().unwrap().iter().enumerate() {
        let bytes = hex::decode(frame["hex"].as_str().unwrap()).unwrap();
        write("wire", format!("golden-{n:02}"), &bytes);
    }
    let (changes, documents) = seeds::changes_and_documents();
    for (n, change) in changes.iter().enumerate() {
        // Behind the chunk's header, whose length takes one or two bytes.
        let header = if change[9] < 0x80 { 10 } else { 11 };
        write(
            "chunks",
            format!("change-{n:02}"),
            &[&[1], &change[header..]].concat(),
        );
        write(
            "chunks",
            format!("whole-change-{n:02}"),
            &[&[3], &change[..]].concat(),
        );
    }
    for (n, document) in documents.iter().enumerate() {
        let header = if document[9] < 0x80 { 10 } else { 11 };
        write(
            "chunks",
            format!("document-{n:02}"),
            &[&[0], &document[header..]].concat(),
        );
    }
    for (n, message) in seeds::conversation().iter().enumerate() {
        write("sync_session", format!("message-{n:02}"), message);
    }
    for (n, conversation) in seeds::conversations().iter().enumerate() {
        write("sync_session", format!("conversation-{n:02}"), conversation);
    }
    for (n, input) in seeds::attacks().iter().enumerate() {
        write("admission", format!("attack-{n:02}"), input);
    }
    let zero_bits = [0x42, 0, 0, 1, 0, 3, 1, 0, 1, 0];
    write("sync_session", "bloom-of-no-bits".into(), &zero_bits);
    let probes = [0x42, 0, 0, 1, 0, 7, 1, 8, 0x80, 0x84, 0xaf, 0x5f, 0xff, 0];
    write("sync_session", "bloom-of-many-probes".into(), &probes);
    let claim = b"\0\x01\x07\x01\x01\0\0\0\x05\x15\x06\x34\x04\x42\x05\x56\x05\x70\x05\
        \x80\xe1\xeb\x17\x01k\x80\xe1\xeb\x17\x80\xe1\xeb\x17\x01\x80\xe1\xeb\x17\x02\x80\xe1\xeb\x17\0";
    write(
        "chunks",
        "claims-fifty-million-ops".into(),
        &[&[1], &claim[..]].concat(),
    );
}

#[cfg(test)]
mod seeds {
    use std::collections::BTreeSet;

    use automerge::marks::{ExpandMark, Mark};
    use automerge::sync::{State, SyncDoc as _};
    use automerge::transaction::{CommitOptions, Transactable as _};
    use automerge::{ActorId, AutoCommit, ObjType, ROOT, ScalarValue};
    use concord_tests::forge::source::Source;

    fn document() -> AutoCommit {
        let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 4]));
        let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
        let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
        doc.put(ROOT, "counter", ScalarValue::counter(1)).unwrap();
        doc.commit();
        doc.splice_text(&text, 0, 0, "hello").unwrap();
        doc.commit();
        let mut other = doc.fork().with_actor(ActorId::from([2; 4]));
        let mark = Mark::new("bold".to_owned(), true, 1, 3);
        other.mark(&text, mark, ExpandMark::Both).unwrap();
        other.splice_text(&text, 2, 2, "xyz").unwrap();
        other.increment(ROOT, "counter", 5).unwrap();
        other.commit_with(
            CommitOptions::default()
                .with_message("message")
                .with_time(9),
        );
        doc.insert(&list, 0, 1.5).unwrap();
        doc.insert(&list, 1, ScalarValue::Bytes(vec![1, 2]))
            .unwrap();
        doc.delete(&list, 0).unwrap();
        doc.put(ROOT, "counter", 7).unwrap();
        doc.commit();
        doc.merge(&mut other).unwrap();
        doc.delete(ROOT, "counter").unwrap();
        doc.commit();
        doc.empty_change(CommitOptions::default());
        doc.splice_text(&text, 0, 0, &"long ".repeat(100)).unwrap();
        doc.commit();
        doc
    }

    pub(super) fn changes_and_documents() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut doc = document();
        let changes = doc.get_changes(&[]);
        let raw = changes.iter().map(|change| change.raw_bytes().to_vec());
        let compressed = changes.iter().map(|change| change.clone().bytes().to_vec());
        let changes = raw
            .chain(compressed.filter(|bytes| bytes[8] == 2))
            .collect();
        let empty = AutoCommit::new().save();
        (changes, vec![doc.save_nocompress(), doc.save(), empty])
    }

    pub(super) fn conversation() -> Vec<Vec<u8>> {
        let mut ours = document();
        let mut theirs = ours.fork().with_actor(ActorId::from([3; 4]));
        for n in 0..12 {
            ours.put(ROOT, "ours", n).unwrap();
            ours.commit();
            theirs.put(ROOT, "theirs", n).unwrap();
            theirs.commit();
        }
        let mut empty = AutoCommit::new();
        let mut messages = talk(&mut ours, &mut theirs);
        messages.extend(talk(&mut ours, &mut empty));
        messages.into_iter().map(|(_, message)| message).collect()
    }

    /// Random decisions, those that lead to something which none before them did.
    pub(super) fn attacks() -> Vec<Vec<u8>> {
        let (mut inputs, mut reached) = (Vec::new(), BTreeSet::new());
        for seed in 0..30_000 {
            let mut source = Source::seeded(seed);
            let history = 5 + source.below(40);
            let length = 1 + 4 * history + 10 + source.below(60);
            let mut input: Vec<u8> = (0..length).map(|_| source.below(256) as u8).collect();
            input[0] = history as u8;
            let before = reached.len();
            reached.append(&mut super::checks::admission::reached(&input));
            if reached.len() > before || seed % 1_500 == 0 {
                inputs.push(input);
            }
        }
        println!("{reached:#?}");
        inputs
    }

    /// What replicas say to a server that holds a document of theirs, or none: one that is new, one
    /// that is ahead, one that is behind and offline edits, one that lost everything in between. With
    /// each way that the rest of the server can be in step with it.
    pub(super) fn conversations() -> Vec<Vec<u8>> {
        let mut inputs = Vec::new();
        for after in [0, 1, 3, 7, 8, 11, 15] {
            for ahead in [0, 3, 30] {
                let mut server = super::checks::session::seeded();
                let mut client = AutoCommit::new().with_actor(ActorId::from([9; 4]));
                if ahead > 0 {
                    client = server.fork().with_actor(ActorId::from([9; 4]));
                }
                for n in 0..ahead {
                    client.put(ROOT, "client", n).unwrap();
                    client.commit();
                }
                let mut said = spoken_by_the_first(&mut client, &mut server);
                let mut lost = AutoCommit::new().with_actor(ActorId::from([8; 4]));
                said.extend(spoken_by_the_first(&mut lost, &mut server));
                let said: Vec<_> = said.into_iter().map(|message| (message, after)).collect();
                inputs.push(super::checks::session::join(&said));
            }
        }
        inputs
    }

    fn spoken_by_the_first(ours: &mut AutoCommit, theirs: &mut AutoCommit) -> Vec<Vec<u8>> {
        let said = talk(ours, theirs);
        let said = said.into_iter().filter(|(is_ours, _)| *is_ours);
        said.map(|(_, message)| message).collect()
    }

    /// What both say, each message with whether it is ours.
    fn talk(ours: &mut AutoCommit, theirs: &mut AutoCommit) -> Vec<(bool, Vec<u8>)> {
        let (mut our_state, mut their_state) = (State::new(), State::new());
        let mut messages = Vec::new();
        for _ in 0..8 {
            if let Some(message) = ours.sync().generate_sync_message(&mut our_state) {
                messages.push((true, message.clone().encode()));
                theirs
                    .sync()
                    .receive_sync_message(&mut their_state, message)
                    .unwrap();
            }
            if let Some(message) = theirs.sync().generate_sync_message(&mut their_state) {
                messages.push((false, message.clone().encode()));
                ours.sync()
                    .receive_sync_message(&mut our_state, message)
                    .unwrap();
            }
        }
        messages
    }
}
