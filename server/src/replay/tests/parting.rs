//! Replicas that are broken on purpose.

use std::collections::HashSet;

use automerge::ChangeHash;

use super::{recorded, rounds};
use crate::replay::{Fault, Order, Recorded, Subject, check};

/// Loses one change, when it comes after another that it does not build on.
struct Careless {
    document: automerge::Automerge,
    forgets: ChangeHash,
    after: ChangeHash,
    has_after: bool,
    seen: Vec<ChangeHash>,
}

impl Subject for Careless {
    type State = Vec<ChangeHash>;
    type Error = automerge::AutomergeError;

    fn apply(&mut self, change: &Recorded) -> Result<(), Self::Error> {
        self.document.apply_changes([change.change().clone()])?;
        self.has_after |= change.hash() == self.after;
        if change.hash() != self.forgets || !self.has_after {
            self.seen.push(change.hash());
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Self::State, Self::Error> {
        self.seen.sort_unstable();
        Ok(self.seen.clone())
    }
}

/// The change is known beforehand: in the order of arrival `forgets` comes first and is kept, in another one it may come
/// second and is lost. The two part with the later of both, in a history of hundreds.
#[test]
fn the_change_that_a_broken_replica_loses_is_named() {
    let recording = recorded(&rounds(40));
    let changes = recording.changes();
    let mut pasts: Vec<HashSet<usize>> = Vec::new();
    for change in changes {
        let deps = change.deps().iter();
        let deps = deps.map(|dep| changes.iter().position(|at| at.hash() == *dep).unwrap());
        let past = deps.flat_map(|dep| pasts[dep].iter().copied().chain([dep]));
        let past = past.collect();
        pasts.push(past);
    }
    let mut found = 0;
    for later in 1..changes.len() {
        let Some(earlier) = (0..later)
            .rev()
            .find(|earlier| !pasts[later].contains(earlier))
        else {
            continue;
        };
        let new = || Careless {
            document: automerge::Automerge::new(),
            forgets: changes[earlier].hash(),
            after: changes[later].hash(),
            has_after: false,
            seen: Vec::new(),
        };
        let fault = check(&recording, 0..64, new).unwrap_err();
        let Fault::Parted { order, parting } = fault else {
            panic!("{fault}");
        };
        assert!(matches!(order, Order::Random(0..64)));
        assert_eq!(
            (parting.prefix, parting.change),
            (later + 1, changes[later].hash())
        );
        assert_eq!(&parting.actor, changes[later].actor());
        found += 1;
    }
    assert_eq!(found, 40, "one in each round");
}

#[test]
fn a_subject_that_fails_or_panics_is_a_fault() {
    struct Fails(usize, bool);
    impl Subject for Fails {
        type State = ();
        type Error = String;
        fn apply(&mut self, _: &Recorded) -> Result<(), String> {
            self.0 += 1;
            assert!(self.0 != 6 || self.1, "sixth");
            (self.0 != 6).then_some(()).ok_or_else(|| "no".to_owned())
        }
        fn state(&mut self) -> Result<(), String> {
            Ok(())
        }
    }
    let recording = recorded(&rounds(4));
    let failed = |why: &str| {
        let why = why.to_owned();
        Err(Fault::Failed { after: 5, why })
    };
    assert_eq!(check(&recording, 0..4, || Fails(0, true)), failed("no"));
    assert_eq!(
        check(&recording, 0..4, || Fails(0, false)),
        failed("panicked: sixth")
    );
}
