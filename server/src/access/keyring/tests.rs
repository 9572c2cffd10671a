use std::sync::LazyLock;

use serde_json::json;

use super::*;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

const PACE: Pace = Pace {
    file: Duration::from_secs(20),
    url: Duration::from_mins(10),
    url_least: Duration::from_mins(1),
    url_most: Duration::from_hours(1),
    retry: Duration::from_secs(90),
    file_gap: Duration::from_secs(1),
    url_gap: Duration::from_secs(30),
    fetch: Duration::from_secs(10),
    believed: Duration::from_hours(24),
    wait: Duration::from_secs(3),
    most_waiting: 4,
};

fn at(seconds: u64) -> Instant {
    *START + Duration::from_secs(seconds)
}

/// Keys of these names.
fn set(names: &[&str]) -> KeySet {
    let keys: Vec<_> = names
        .iter()
        .map(|name| json!({ "kty": "OKP", "crv": "Ed25519", "x": "A".repeat(43), "kid": name }))
        .collect();
    match KeySet::parse(&json!({ "keys": keys }).to_string()) {
        Err(KeyError::None) => KeySet::default(),
        set => set.expect("a set"),
    }
}

fn good(names: &[&str]) -> Result<Fresh, SourceError> {
    good_for(names, None)
}

#[expect(clippy::unnecessary_wraps, reason = "as what reading gives")]
fn good_for(names: &[&str], max_age: Option<u64>) -> Result<Fresh, SourceError> {
    Ok(Fresh {
        keys: set(names),
        max_age: max_age.map(Duration::from_secs),
    })
}

fn bad() -> Result<Fresh, SourceError> {
    Err(SourceError::NotText)
}

fn names(ring: &Keyring) -> Vec<String> {
    let described = ring.keys().expect("not too many").described();
    let names = described.iter().filter_map(|key| key.split('"').nth(1));
    names.map(str::to_owned).collect()
}

/// Of an address that had key `a` at the start, read in no time.
fn ring() -> Keyring {
    let mut ring = Keyring::new(KeySet::default(), [Kind::Url], PACE, at(0));
    assert_eq!(ring.due(at(0)), [0]);
    ring.done(0, at(0), good(&["a"]));
    ring
}

fn is_worth_waiting(ring: &mut Keyring, now: Instant) -> bool {
    ring.unknown_key(now);
    ring.is_looking(now)
}

#[test]
fn a_source_is_read_again_when_its_time_has_come() {
    for (max_age, expected) in [
        (None, 600),
        (Some(0), 60),
        (Some(59), 60),
        (Some(300), 300),
        (Some(3600), 3600),
        (Some(u64::MAX), 3600),
    ] {
        let mut ring = Keyring::new(KeySet::default(), [Kind::Url], PACE, at(0));
        assert_eq!(ring.wake_at(), Some(at(0)));
        assert_eq!(ring.due(at(0)), [0]);
        assert_eq!(ring.wake_at(), None, "until it has ended");
        // The time counts from the end.
        ring.done(0, at(5), good_for(&["a"], max_age));
        let next = 5 + expected;
        assert_eq!(ring.wake_at(), Some(at(next)), "{max_age:?}");
        assert_eq!(ring.due(at(next - 1)), [0; 0]);
        assert_eq!(ring.due(at(next)), [0]);
        assert_eq!(ring.due(at(next + 1)), [0; 0], "one at a time");
        ring.done(0, at(next + 1), bad());
        assert_eq!(ring.wake_at(), Some(at(next + 91)), "after a failure");
    }
    let mut ring = Keyring::new(KeySet::default(), [Kind::File], PACE, at(0));
    for (second, read) in [(0, good_for(&["a"], Some(300))), (20, bad())] {
        assert_eq!(ring.due(at(second)), [0]);
        ring.done(0, at(second), read);
        assert_eq!(ring.wake_at(), Some(at(second + 20)));
    }
}

#[test]
fn what_a_source_has_now_is_all_that_is_believed_of_it() {
    let mut ring = Keyring::new(set(&["fixed"]), [Kind::Url, Kind::File], PACE, at(0));
    assert_eq!(ring.due(at(0)), [0, 1]);
    assert_eq!(names(&ring), ["fixed"]);
    ring.done(1, at(0), good(&["b", "c"]));
    ring.done(0, at(1), good(&["a", "b"]));
    // A name may be of several: each is tried.
    assert_eq!(names(&ring), ["fixed", "a", "b", "b", "c"]);
    ring.done(0, at(2), good(&["d"]));
    assert_eq!(names(&ring), ["fixed", "d", "b", "c"]);
    // That there is none was said, as clearly as that there are some.
    ring.done(0, at(3), Err(KeyError::None.into()));
    assert_eq!(names(&ring), ["fixed", "b", "c"]);
}

#[test]
fn a_source_that_fails_keeps_its_keys_for_a_while() {
    let mut ring = ring();
    let end = 86_400;
    let told = |ring: &mut Keyring, second, read| {
        assert_eq!(ring.due(at(second)), [0]);
        match ring.done(0, at(second), read) {
            Some(Outcome::Failed { is_first, .. }) => (false, is_first),
            Some(Outcome::Read { was_failing }) => (true, was_failing),
            None => panic!("there is such a source"),
        }
    };
    // Told once, and again when that is over.
    assert_eq!(told(&mut ring, 600, bad()), (false, true));
    assert_eq!(told(&mut ring, 700, bad()), (false, false));
    assert_eq!(names(&ring), ["a"]);
    assert_eq!(told(&mut ring, 800, good(&["a"])), (true, true));
    assert_eq!(told(&mut ring, 1400, good(&["a"])), (true, false));
    assert_eq!(told(&mut ring, 2000, bad()), (false, true));
    // The end counts from when they were last read, and comes while the next reading hangs, too.
    assert_eq!(ring.due(at(2090)), [0]);
    assert_eq!(ring.wake_at(), Some(at(1400 + end)));
    assert_eq!(ring.give_up(at(1399 + end)), [0; 0]);
    assert_eq!(names(&ring), ["a"]);
    assert_eq!(ring.give_up(at(1400 + end)), [0]);
    assert_eq!(names(&ring), [""; 0]);
    assert_eq!(ring.give_up(at(1401 + end)), [0; 0], "once");
    assert_eq!(ring.wake_at(), None);
    ring.done(0, at(1402 + end), good(&["b"]));
    assert_eq!(names(&ring), ["b"]);
}

#[test]
fn an_unknown_key_is_looked_for_once_in_a_while() {
    let mut ring = ring();
    assert!(
        !is_worth_waiting(&mut ring, at(29)),
        "too soon, so nobody waits"
    );
    assert_eq!(ring.due(at(29)), [0; 0]);
    assert!(is_worth_waiting(&mut ring, at(30)));
    assert_eq!(ring.wake_at(), Some(at(30)));
    assert_eq!(ring.due(at(30)), [0]);
    // While it is being read everybody waits for the same.
    for second in 30..60 {
        assert!(is_worth_waiting(&mut ring, at(second)));
        assert_eq!(ring.due(at(second)), [0; 0]);
    }
    // However long that took: at most one begins in so many seconds.
    ring.done(0, at(59), bad());
    assert!(!is_worth_waiting(&mut ring, at(59)));
    assert!(is_worth_waiting(&mut ring, at(60)));
    assert_eq!(ring.due(at(60)), [0]);
    ring.done(0, at(60), good(&["b"]));
    assert!(!is_worth_waiting(&mut ring, at(61)));

    let mut begun = 0;
    for second in 100..1000 {
        for _ in 0..100 {
            ring.unknown_key(at(second));
        }
        for nth in ring.due(at(second)) {
            begun += 1;
            ring.done(nth, at(second), good(&["b"]));
        }
    }
    assert_eq!(begun, 900 / 30);
}

/// What is near is looked at more often, and what waits for one does not wait for the other's time.
#[test]
fn each_source_has_its_own_time() {
    let mut ring = Keyring::new(KeySet::default(), [Kind::Url, Kind::File], PACE, at(0));
    ring.due(at(0));
    assert!(is_worth_waiting(&mut ring, at(0)), "both are being read");
    ring.done(0, at(0), good(&["a"]));
    ring.done(1, at(0), good(&["b"]));
    assert!(!is_worth_waiting(&mut ring, at(0)));
    assert!(is_worth_waiting(&mut ring, at(1)));
    assert_eq!(ring.due(at(1)), [1]);
    ring.done(1, at(1), good(&["c"]));
    assert_eq!(names(&ring), ["a", "c"]);
    let mut fixed = Keyring::new(set(&["a"]), [], PACE, at(0));
    assert!(!is_worth_waiting(&mut fixed, at(9)));
}

#[test]
fn too_many_keys_together_are_a_failure_of_who_brought_them() {
    let many: Vec<_> = (0..60).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let mut ring = Keyring::new(set(&["fixed"]), [Kind::Url, Kind::File], PACE, at(0));
    ring.due(at(0));
    ring.done(0, at(0), good(&many));
    ring.done(1, at(0), good(&["a", "b", "c"]));
    let failed = ring.done(1, at(1), good(&["a", "b", "c", "d"]));
    assert!(matches!(
        failed,
        Some(Outcome::Failed {
            error: SourceError::Keys(KeyError::TooMany),
            ..
        })
    ));
    assert_eq!(names(&ring).len(), 64);
    ring.done(0, at(2), good(&many[..59]));
    ring.done(1, at(3), good(&["a", "b", "c", "d"]));
    assert_eq!(names(&ring).last().map(String::as_str), Some("d"));
}
