//! Named inputs that hurt a server or a document today, each with the error it gets, quickly.

use std::io::Write as _;

use super::*;

/// The data of a change, with everything in it free to be wrong.
#[derive(Clone)]
struct Made {
    deps: Vec<u8>,
    actor: Vec<u8>,
    seq: u64,
    start_op: u64,
    time: Vec<u8>,
    other_actors: Vec<u8>,
    columns: Vec<(u64, Vec<u8>)>,
    extra: Vec<u8>,
}

/// Two puts of the value true into the root's key "k".
fn two_puts() -> Made {
    Made {
        deps: vec![0],
        actor: vec![1, 7],
        seq: 1,
        start_op: 1,
        time: vec![0],
        other_actors: vec![0],
        columns: vec![
            (0x15, b"\x02\x01k".to_vec()),
            (0x34, vec![2]),
            (0x42, vec![2, 1]),
            (0x56, vec![2, 2]),
            (0x70, vec![2, 0]),
        ],
        extra: vec![],
    }
}

fn uleb(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

fn sleb(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut value = value;
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

impl Made {
    fn with(mut self, spec: u64, bytes: &[u8]) -> Self {
        self.columns.retain(|(found, _)| *found != spec);
        if !bytes.is_empty() {
            self.columns.push((spec, bytes.to_vec()));
            self.columns.sort();
        }
        self
    }

    fn chunk(&self) -> Vec<u8> {
        let mut data = self.deps.clone();
        data.extend(&self.actor);
        data.extend(uleb(self.seq));
        data.extend(uleb(self.start_op));
        data.extend(&self.time);
        data.push(0);
        data.extend(&self.other_actors);
        data.extend(uleb(self.columns.len() as u64));
        for (spec, bytes) in &self.columns {
            data.extend(uleb(*spec));
            data.extend(uleb(bytes.len() as u64));
        }
        for (_, bytes) in &self.columns {
            data.extend(bytes);
        }
        data.extend(&self.extra);
        chunk(1, &data)
    }
}

fn refused(bytes: &[u8]) -> ChunkError {
    let start = Instant::now();
    let error = parse_chunks(&Bytes::copy_from_slice(bytes), &limits()).unwrap_err();
    // The slowest takes milliseconds; what it keeps away would take seconds to hours.
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{error}: {:?}",
        start.elapsed()
    );
    match error {
        ChunkError::Change { error, .. } => *error,
        error => error,
    }
}

fn code(made: &Made) -> ErrorCode {
    refused(&made.chunk()).code()
}

#[test]
fn the_made_change_is_good_until_it_is_spoiled() {
    let change = one_change(&two_puts().chunk()).unwrap();
    assert_eq!((change.seq, change.start_op, change.ops), (1, 1, 2));
}

/// A change of 55 bytes that claims 5·10^7 ops takes Automerge 10 s.
#[test]
fn run_lengths_that_claim_millions_of_ops() {
    let claim = |ops: i64| {
        let run = |value: u8| [sleb(ops), vec![value]].concat();
        two_puts()
            .with(0x15, &[sleb(ops), b"\x01k".to_vec()].concat())
            .with(0x34, &uleb(ops.unsigned_abs()))
            .with(0x42, &run(1))
            .with(0x56, &run(2))
            .with(0x70, &run(0))
    };
    assert!(claim(50_000_000).chunk().len() < 60);
    assert_eq!(code(&claim(50_000_000)), ErrorCode::TooManyOps);
    assert_eq!(code(&claim(i64::MAX)), ErrorCode::TooManyOps);
    assert_eq!(one_change(&claim(100_000).chunk()).unwrap().ops, 100_000);

    // More runs do not get further than one.
    let mut runs = Vec::new();
    for n in 0..10_000_u64 {
        runs.extend(sleb(i64::MAX));
        runs.push((n % 2) as u8);
    }
    assert_eq!(code(&two_puts().with(0x42, &runs)), ErrorCode::TooManyOps);

    // Nor do many changes in one message, concatenated or one by one.
    let one = Bytes::from(claim(60_000).chunk());
    let small = Limits {
        ops_per_message: 100_000,
        ..limits()
    };
    let many: Vec<Bytes> = vec![one.clone(); 1000];
    for many in [vec![Bytes::from(one.repeat(1000))], many] {
        let start = Instant::now();
        let error = parse_message(&many, &small).unwrap_err();
        assert_eq!(error.code(), ErrorCode::TooManyOps);
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}

/// Each document chunk may cost what a document costs, so there is one in a message.
#[test]
fn many_documents_in_one_message() {
    let document = Bytes::from(AutoCommit::new().save());
    assert!(parse_chunks(&document, &limits()).is_ok());
    let error = parse_message(&[document.clone(), document], &limits()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::ChangeTooLarge);
}

/// Loading costs by the op, and a run of ops next to nothing to send.
#[test]
fn ops_of_a_document_out_of_proportion_to_its_bytes() {
    let few_in_few_bytes = Limits {
        document_ops_in_a_few_bytes: 1_000,
        ..limits()
    };
    let decode =
        |doc: &mut AutoCommit, limits: &Limits| decode_document(&doc.save().into(), limits);
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, &"a".repeat(50_000)).unwrap();
    let error = decode(&mut doc, &few_in_few_bytes).unwrap_err();
    assert_eq!(error.code(), ErrorCode::DocumentTooLarge, "{error}");
    // One paste of a letter is honest.
    assert!(decode(&mut doc, &limits()).is_ok());
    // And so are keystrokes, of which there may be as many as there are bytes for them.
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    for n in 0..2_000 {
        let letter = char::from(b'a' + u8::try_from(n * n % 23).unwrap());
        doc.splice_text(&text, n, 0, &letter.to_string()).unwrap();
        doc.commit();
    }
    assert!(decode(&mut doc, &few_in_few_bytes).is_ok());
}

/// What was let in once is read back without bounds, which must not overflow anything.
#[test]
fn no_bounds_are_not_bounds_of_nothing() {
    let unbounded = Limits::unbounded();
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "key", "long ".repeat(100)).unwrap();
    let mut change = doc.get_last_local_change().unwrap().clone();
    let compressed = Bytes::from(change.bytes().to_vec());
    assert_eq!(compressed[8], 2);
    assert_eq!(parse_chunks(&compressed, &unbounded).unwrap().len(), 1);
    let changes = decode_document(&doc.save().into(), &unbounded).unwrap();
    assert_eq!(changes.len(), 1);
}

/// A change of ops by one author over those of another.
fn over_another(ops: i64, key: &str, preds: i64, counters: &[u8]) -> Made {
    let run = |count: i64, value: &[u8]| {
        let count = if count == 1 { -1 } else { count };
        [&sleb(count), value].concat()
    };
    let key = [&uleb(key.len() as u64), key.as_bytes()].concat();
    let mut made = two_puts()
        .with(0x15, &run(ops, &key))
        .with(0x34, &uleb(ops.unsigned_abs()))
        .with(0x42, &run(ops, &[1]))
        .with(0x56, &run(ops, &[2]))
        .with(0x70, &run(ops, &uleb((preds / ops).unsigned_abs())))
        .with(0x71, &run(preds, &[1]))
        .with(0x73, counters);
    made.other_actors = vec![1, 1, 9];
    made.start_op = 2 * preds.unsigned_abs() + 1;
    made
}

/// One op over four million took 200 MB of 100 bytes, and a long key was kept for each op that named it.
#[test]
fn what_ops_refer_to_is_kept_by_the_byte() {
    const MANY: i64 = 1_000_000;
    let memory = |made: &Made| {
        let start = Instant::now();
        let change = one_change(&made.chunk()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
        change.memory()
    };
    let ascending = [sleb(MANY), vec![1]].concat();
    let one_op = over_another(1, "k", MANY, &ascending);
    assert!(memory(&one_op) < 1 << 10);
    let always_the_first = [vec![0x7f, 1], sleb(MANY - 1), vec![0]].concat();
    let same = over_another(MANY, "k", MANY, &always_the_first);
    assert!(memory(&same) < 1 << 10);
    let long = "key ".repeat(500_000);
    let same = over_another(MANY, &long, MANY, &always_the_first);
    assert!(memory(&same) < 3 * long.len());

    // What can't be kept like that is bounded.
    let every_other = [sleb(MANY), vec![2]].concat();
    let scattered = over_another(1, "k", MANY, &every_other).chunk();
    let kept = one_change(&scattered).unwrap().memory();
    let message = vec![Bytes::from(scattered.clone()); 10];
    let enough = Limits {
        refs_bytes: kept * 3 / 2,
        ops_per_message: u64::MAX,
        ..limits()
    };
    assert!(parse_message(&message[..1], &enough).is_ok());
    let error = parse_message(&message, &enough).unwrap_err();
    assert_eq!(error.code(), ErrorCode::ChangeTooLarge);
    // And predecessors count as ops do.
    let few = Limits {
        ops_per_message: 4 * MANY.unsigned_abs(),
        ..limits()
    };
    let error = parse_message(&message, &few).unwrap_err();
    assert_eq!(error.code(), ErrorCode::TooManyOps);
}

/// Any column may claim rows, not only the one that counts.
#[test]
fn rows_that_are_not_ops() {
    let claim = [sleb(i64::MAX), vec![1]].concat();
    for spec in [0x01, 0x02, 0x11, 0x13, 0x56, 0x70] {
        let code = code(&two_puts().with(spec, &claim));
        assert!(
            matches!(
                code,
                ErrorCode::TooManyOps | ErrorCode::BadChange | ErrorCode::BadOp
            ),
            "{spec:#x}: {code}"
        );
    }
    let one_too_many = [
        (0x15, &b"\x03\x01k"[..]),
        (0x34, &[3]),
        (0x56, &[3, 2]),
        (0x70, &[3, 0]),
    ];
    for (spec, bytes) in one_too_many {
        let error = refused(&two_puts().with(spec, bytes).chunk());
        assert!(
            matches!(
                error,
                ChunkError::Rows {
                    rows: 3,
                    expected: 2,
                    ..
                }
            ),
            "{error}"
        );
        let error = refused(&two_puts().with(spec, &[]).chunk());
        assert!(
            matches!(
                error,
                ChunkError::Rows { rows: 0, .. }
                    | ChunkError::Op {
                        error: OpError::NoKey,
                        ..
                    }
            ),
            "{spec:#x}: {error}"
        );
    }
    // Predecessors: claimed by their count, and by their columns.
    let claimed = two_puts().with(0x70, &[&[2][..], &uleb(u64::MAX)].concat());
    assert_eq!(code(&claimed), ErrorCode::TooManyOps);
    let error = refused(&two_puts().with(0x70, &[2, 2]).chunk());
    assert!(matches!(error, ChunkError::Rows { rows: 0, .. }), "{error}");
    let preds = two_puts()
        .with(0x70, &[&[2][..], &uleb(1 << 40)].concat())
        .with(0x71, &[sleb(1 << 41), vec![0]].concat());
    assert_eq!(code(&preds), ErrorCode::TooManyOps);
}

/// A 1 MB compressed chunk inflated to 3.4 GB before anything was checked.
#[test]
fn a_deflate_bomb() {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..100 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 200_000);
    let error = refused(&chunk(2, &bomb));
    assert!(
        matches!(
            error,
            ChunkError::TooLarge {
                limit: 16_777_216,
                bytes: 16_777_217,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.code(), ErrorCode::ChangeTooLarge);

    assert_eq!(
        refused(&chunk(2, b"not deflate")).code(),
        ErrorCode::BadChunk
    );
}

#[test]
fn framing() {
    let good = two_puts().chunk();
    let mut wrong_checksum = good.clone();
    wrong_checksum[4] ^= 1;
    // Automerge itself does not mind.
    assert!(automerge::Change::try_from(&wrong_checksum[..]).is_ok());
    assert_eq!(refused(&wrong_checksum).code(), ErrorCode::BadChecksum);

    let garbage_after = [&good[..], b"garbage"].concat();
    assert_eq!(refused(&garbage_after).code(), ErrorCode::BadChunk);
    for kind in [3, 4, 255] {
        let code = refused(&chunk(kind, &[0; 20])).code();
        assert_eq!(code, ErrorCode::UnsupportedChunk, "{kind}");
    }
    // A length of 2^63 and nothing behind it, and one written with needless bytes.
    let long = [&good[..9], &uleb(1 << 63)].concat();
    assert_eq!(refused(&long).code(), ErrorCode::BadChunk);
    let overlong = [&good[..9], &[good[9] | 0x80, 0], &good[10..]].concat();
    assert_eq!(refused(&overlong).code(), ErrorCode::BadChunk);
}

#[test]
fn header_values() {
    let spoil = |spoil: &dyn Fn(&mut Made)| {
        let mut made = two_puts();
        spoil(&mut made);
        code(&made)
    };
    assert_eq!(spoil(&|made| made.seq = 0), ErrorCode::BadChange);
    assert_eq!(spoil(&|made| made.seq = 1 << 32), ErrorCode::BadChange);
    assert_eq!(spoil(&|made| made.start_op = 0), ErrorCode::BadChange);
    assert_eq!(
        spoil(&|made| made.start_op = u64::MAX),
        ErrorCode::BadChange
    );
    let last = |made: &mut Made| made.start_op = u64::from(u32::MAX) - 1;
    assert_eq!(spoil(&last), ErrorCode::BadChange);
    assert_eq!(spoil(&|made| made.actor = vec![0]), ErrorCode::BadChange);
    assert_eq!(
        spoil(&|made| made.actor = uleb(1 << 60)),
        ErrorCode::ChangeTooLarge
    );
    assert_eq!(
        spoil(&|made| made.deps = uleb(1 << 60)),
        ErrorCode::ChangeTooLarge
    );
    assert_eq!(
        spoil(&|made| made.other_actors = uleb(1 << 60)),
        ErrorCode::ChangeTooLarge
    );
    assert_eq!(
        spoil(&|made| made.extra = vec![0; 70_000]),
        ErrorCode::ChangeTooLarge
    );
    // Saved documents hold the difference of two timestamps; Automerge overflows on this one.
    assert_eq!(
        spoil(&|made| made.time = sleb(i64::MIN)),
        ErrorCode::BadChange
    );
    let twice = |made: &mut Made| made.deps = [&[2][..], &[5; 64]].concat();
    assert_eq!(spoil(&twice), ErrorCode::BadChange);
}

/// Every way to say the same in other bytes. Each is read by Automerge, which writes it as something
/// else, so that a saved document that holds it has other heads than it says and never loads again:
/// that is shown for those that an empty document can apply.
#[test]
fn other_encodings_of_the_same() {
    let put = two_puts();
    let one_put = put
        .clone()
        .with(0x15, b"\x7f\x01k")
        .with(0x34, &[1])
        .with(0x42, &[0x7f, 1])
        .with(0x56, &[0x7f, 2])
        .with(0x70, &[0x7f, 0]);
    assert!(one_change(&one_put.chunk()).is_ok());
    let puts = |actions: &[u8]| {
        let made = put.clone().with(0x15, b"\x04\x01k").with(0x34, &[4]);
        let made = made.with(0x56, &[4, 2]).with(0x70, &[4, 0]);
        made.with(0x42, actions)
    };
    assert!(one_change(&puts(&[4, 1]).chunk()).is_ok());
    let cases = [
        ("a run after its like", puts(&[2, 1, 2, 1])),
        ("a run after one of its values", puts(&[0x7f, 1, 3, 1])),
        ("a value after its run", puts(&[3, 1, 0x7f, 1])),
        ("a run of one", one_put.clone().with(0x42, &[1, 1])),
        (
            "a run cut in two",
            put.clone().with(0x42, &[0x7f, 1, 0x7f, 1]),
        ),
        (
            "equal values one by one",
            put.clone().with(0x42, &[0x7e, 1, 1]),
        ),
        ("nulls only", put.clone().with(0x01, &[0, 2])),
        ("an overlong number", put.clone().with(0x42, &[2, 0x81, 0])),
        ("an overlong count", put.clone().with(0x42, &[0x82, 0, 1])),
        (
            "false only, where it may be absent",
            put.clone().with(0x94, &[2]),
        ),
        (
            "an empty run of booleans",
            put.clone().with(0x34, &[1, 0, 1]),
        ),
        ("a column nobody knows", put.clone().with(0xf2, &[2, 0])),
        (
            "a length for true",
            put.clone().with(0x56, &[2, 0x12]).with(0x57, &[1, 2]),
        ),
        (
            "bytes after the last value",
            put.clone().with(0x57, &[1, 2]),
        ),
        ("an actor nobody refers to", {
            let mut made = put.clone();
            made.other_actors = vec![1, 1, 9];
            made
        }),
        ("an empty column", {
            let mut made = put.clone();
            made.columns.insert(0, (0x01, vec![]));
            made
        }),
    ];
    let mut shown = 0;
    for (name, made) in cases {
        let bytes = made.chunk();
        let error = refused(&bytes);
        assert!(
            matches!(
                error.code(),
                ErrorCode::BadChange | ErrorCode::BadChunk | ErrorCode::BadValue
            ),
            "{name}: {error}"
        );
        let Ok(theirs) = automerge::Change::try_from(&bytes[..]) else {
            continue;
        };
        // Some of them panic as soon as they are applied.
        let survives = std::panic::catch_unwind(|| {
            let mut doc = AutoCommit::new();
            doc.apply_changes([theirs]).unwrap();
            AutoCommit::load(&doc.save()).is_ok()
        });
        shown += usize::from(!survives.unwrap_or(false));
    }
    assert!(
        shown >= 10,
        "only {shown} of them hurt: is Automerge mended?"
    );
}

/// Document chunks are as easily made to claim.
#[test]
fn documents_that_claim() {
    let run = |count: i64, value: i64| [sleb(count), sleb(value)].concat();
    let urun = |count: i64, value: u8| [sleb(count), vec![value]].concat();
    let doc = |changes: i64, ops_each: i64, columns: &[(u64, Vec<u8>)]| {
        let mut change_columns = vec![
            (0x01, urun(changes, 0)),
            (0x03, run(changes, 1)),
            (0x13, run(changes, ops_each)),
            (0x40, [vec![0x7f, 0], urun(changes - 1, 1)].concat()),
            (0x43, [vec![0x7f, 0], run(changes - 2, 1)].concat()),
        ];
        for (spec, bytes) in columns {
            change_columns.retain(|(found, _)| found != spec);
            change_columns.push((*spec, bytes.clone()));
        }
        change_columns.sort();
        let mut data = vec![1, 1, 7, 0];
        data.extend(uleb(change_columns.len() as u64));
        for (spec, bytes) in &change_columns {
            data.extend(uleb(*spec));
            data.extend(uleb(bytes.len() as u64));
        }
        data.push(0);
        for (_, bytes) in &change_columns {
            data.extend(bytes);
        }
        chunk(0, &data)
    };
    // It has to be our check that refuses, not Automerge when it loads.
    let inner = |bytes: Vec<u8>| {
        let start = Instant::now();
        let error = decode_document(&bytes.into(), &limits()).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(2), "{error}");
        let code = error.code();
        match error {
            ChunkError::Document(inner) => (code, *inner),
            other => panic!("{other}"),
        }
    };
    let code = |bytes| inner(bytes).0;
    // Changes, ops for each of them, and deps on what is not before them.
    assert_eq!(code(doc(1 << 40, 1, &[])), ErrorCode::DocumentTooLarge);
    assert_eq!(code(doc(900_000, 100, &[])), ErrorCode::DocumentTooLarge);
    let themselves = (0x43, run(999, 1));
    assert_eq!(code(doc(1000, 1, &[themselves])), ErrorCode::BadDocument);
    let behind = (0x43, [sleb(-1), sleb(5), run(998, 1)].concat());
    assert_eq!(code(doc(1000, 1, &[behind])), ErrorCode::BadDocument);
    let outside = (0x01, urun(1000, 1));
    assert_eq!(code(doc(1000, 1, &[outside])), ErrorCode::BadDocument);
    let short = (0x03, run(999, 1));
    assert_eq!(code(doc(1000, 1, &[short])), ErrorCode::BadDocument);

    // A column that inflates beyond the bound.
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&vec![1; 300 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    let mut data = vec![0, 0, 1, 0x35 | 8];
    data.extend(uleb(bomb.len() as u64));
    data.push(0);
    data.extend(bomb);
    let (code, error) = inner(chunk(0, &data));
    assert_eq!(code, ErrorCode::DocumentTooLarge);
    let stopped = (256 << 20) + 1;
    assert!(
        matches!(error, ChunkError::DocumentTooLarge { bytes, .. } if bytes == stopped),
        "{error}"
    );
    // Not a document at all.
    let error = decode_document(&two_puts().chunk().into(), &limits()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnsupportedChunk);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Spoiled documents are errors or good. Where op ids repeat, Automerge panics, which must not
    /// come out; what its columns claim was checked before.
    #[test]
    fn spoiled_documents_are_errors(
        edits in proptest::collection::vec((any::<Index>(), 0..3_u8, any::<u8>()), 1..4),
    ) {
        let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
        for sample in &*SAMPLES {
            doc.load_incremental(sample).unwrap();
        }
        let mut data = data_of(&doc.save_nocompress()).to_vec();
        for (at, how, byte) in edits {
            let at = at.index(data.len());
            match how {
                0 => data[at] = byte,
                1 => data.insert(at, byte),
                _ => { data.remove(at); }
            }
        }
        if let Ok(changes) = decode_document(&chunk(0, &data).into(), &limits()) {
            for change in changes {
                prop_assert_eq!(one_change(&change.bytes).unwrap(), change);
            }
        }
    }
}
