use std::sync::Mutex;

use serde_json::Value;

use super::super::Audit;
use super::super::event::{Asker, Event, Via};
use super::super::{QUEUE_BYTES, Trail};
use super::*;

/// A disk that takes what it likes, and of what was opened last.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Vec<Opened>>>);

#[derive(Debug, Default, Clone)]
struct Opened {
    bytes: Vec<u8>,
    /// How many more it takes; then it fails.
    room: usize,
}

#[derive(Debug)]
struct On {
    disk: Disk,
    number: usize,
}

impl Disk {
    fn open(&self, room: usize) -> Box<dyn Output> {
        let mut files = self.0.lock().unwrap();
        let bytes = Vec::new();
        files.push(Opened { bytes, room });
        let (disk, number) = (self.clone(), files.len() - 1);
        Box::new(On { disk, number })
    }

    fn give_room(&self, room: usize) {
        self.0.lock().unwrap().last_mut().unwrap().room = room;
    }

    fn file(&self, number: usize) -> String {
        let files = self.0.lock().unwrap();
        let file = files.get(number).cloned().unwrap_or_default();
        String::from_utf8(file.bytes).unwrap()
    }

    fn lines(&self, number: usize) -> Vec<Value> {
        let file = self.file(number);
        let lines = file.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

impl Output for On {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut files = self.disk.0.lock().unwrap();
        let file = &mut files[self.number];
        if file.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // In small pieces, so that it ends in the middle of lines.
        let bytes = lines.len().min(file.room).min(100);
        file.room -= bytes;
        file.bytes.extend_from_slice(&lines[..bytes]);
        Ok(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn anew(&self) -> Result<Box<dyn Output>, AuditError> {
        Ok(self.disk.open(usize::MAX))
    }
}

fn trail(audit: &Audit, name: &str) -> Trail {
    audit.trail(|| {
        Some(Asker {
            principal: Some(name.parse().unwrap()),
            address: [192, 0, 2, 7].into(),
            via: Via::Http,
            connection: None,
            operation: None,
        })
    })
}

fn document(number: usize) -> concord_shared::ids::DocumentId {
    number.to_string().parse().unwrap()
}

fn delete(trail: &Trail, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let document = &document(number);
        trail.record(&Event::Deleted { document });
    }
}

fn numbers(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| line["n"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while_loses_nothing_and_tears_nothing() {
    let disk = Disk::default();
    let (audit, writing) = Audit::start(disk.open(450)).unwrap();
    let trail = trail(&audit, "ann");
    delete(&trail, 0..100);
    while disk.file(0).len() < 450 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!disk.file(0).ends_with('\n'));
    delete(&trail, 100..200);
    disk.give_room(usize::MAX);
    writing.finish().await;
    let lines = disk.lines(0);
    assert_eq!(numbers(&lines), (0..=200).collect::<Vec<_>>());
    assert_eq!(lines[0]["event"], "opened");
}

#[tokio::test]
async fn who_records_never_waits_and_what_there_is_no_room_for_is_told() {
    let disk = Disk::default();
    let (audit, writing) = Audit::start(disk.open(0)).unwrap();
    let trail = trail(&audit, &"a".repeat(256));
    let all = 3 * QUEUE_BYTES / 400;
    let start = Instant::now();
    delete(&trail, 0..all);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    disk.give_room(usize::MAX);
    while !disk.file(0).contains("\"n\":0,") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    delete(&trail, all..all + 10);
    writing.finish().await;
    let lines = disk.lines(0);
    let is_lost = |line: &&Value| line["event"] == "lost";
    let lost: Vec<_> = lines.iter().filter(is_lost).collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    let times = lost[0]["times"].as_u64().unwrap();
    let times = usize::try_from(times).unwrap();
    assert!(times > 0 && times < all);
    // All are there or told to be lost, and the numbers say where.
    let deleted = lines
        .iter()
        .filter(|line| line["event"] == "deleted")
        .count();
    assert_eq!(deleted + times, all + 10);
    assert!(numbers(&lines).is_sorted());
    assert_eq!(numbers(&lines).last().copied(), Some((all + 10 + 1) as u64));
    assert!(disk.file(0).len() < 2 * QUEUE_BYTES + (1 << 20));
}

#[tokio::test]
async fn what_the_old_file_did_not_take_begins_the_new_one() {
    let disk = Disk::default();
    let (audit, writing) = Audit::start(disk.open(1000)).unwrap();
    let trail = trail(&audit, "ann");
    delete(&trail, 0..20);
    while disk.file(0).len() < 1000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    audit.reopen();
    while disk.file(1).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    delete(&trail, 20..30);
    writing.finish().await;
    let old = disk.file(0);
    let whole = old.rsplit_once('\n').unwrap().0.lines();
    let old: Vec<Value> = whole
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let new = disk.lines(1);
    let mut all = numbers(&old);
    all.extend(numbers(&new));
    assert_eq!(all, (0..=31).collect::<Vec<_>>());
    let opened = new.iter().filter(|line| line["event"] == "opened");
    assert_eq!(opened.count(), 1);
}

#[tokio::test]
async fn half_a_line_that_was_left_is_ended_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    std::fs::write(&path, "{\"v\":1,\"n\":3,\"at\":\"20").unwrap();
    let (audit, writing) = Audit::start(file(&path).unwrap()).unwrap();
    delete(&trail(&audit, "ann"), 0..1);
    writing.finish().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for line in &lines[1..] {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    // And what is no plain file is none for this.
    let error = file(directory.path()).unwrap_err();
    assert!(matches!(error, AuditError::NoFile { .. }), "{error}");
}

#[tokio::test]
async fn what_was_counted_is_written_at_the_end() {
    let disk = Disk::default();
    let (audit, writing) = Audit::start(disk.open(usize::MAX)).unwrap();
    let trail = trail(&audit, "ann");
    for _ in 0..50 {
        trail.record(&Event::Operator { is_one: false });
    }
    writing.finish().await;
    let lines = disk.lines(0);
    let times: Vec<_> = lines.iter().map(|line| line["times"].as_u64()).collect();
    assert_eq!(times, [None, None, Some(49)]);
    // Where there is no log nothing happens.
    Trail::off().record(&Event::Begun);
}
