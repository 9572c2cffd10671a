//! Whether a subject comes to one state in all orders, and where it parts if not.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::ChangeHash;

use super::order::Order;
use super::recording::{Recorded, Recording};
use super::subject::Subject;

/// Pieces in which a history is given to a subject. One by one where it is short; a long text costs a pass over all of
/// it for each piece, so that a quarter of a million single keystrokes would take hours.
const MOST_PIECES: usize = 1024;

/// Gives a recording's changes to fresh subjects, in one order after another.
#[derive(Debug)]
pub struct Player<'a, New> {
    recording: &'a Recording,
    new: New,
    piece: usize,
}

/// What a subject came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<State> {
    /// It took all changes.
    Came(State),
    /// It did not.
    Failed {
        /// How many changes it had taken before the piece that it did not take.
        after: usize,
        /// What it said, or that it panicked.
        why: String,
    },
}

/// Where two orders part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parting {
    /// The first changes of the recording, so many: they make two states, in the order of arrival and in the other one.
    /// One fewer make the same state.
    pub prefix: usize,
    /// The last of these changes.
    pub change: ChangeHash,
    /// Who made it.
    pub actor: automerge::ActorId,
    /// Which of that replica's changes it is.
    pub seq: u64,
    /// How the two states differ, as far as the subject can say.
    pub difference: Option<String>,
}

/// Why a recording does not hold for a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not even take the changes as they arrived.
    #[error("in the order of arrival, after {after} changes: {why}")]
    Failed {
        /// How many it had taken.
        after: usize,
        /// What it said.
        why: String,
    },
    /// Another order makes another state.
    #[error(
        "{order} parts from the order of arrival at change {} of the recording, {} (number {} of {}){}",
        parting.prefix, parting.change, parting.seq, parting.actor,
        parting.difference.as_ref().map(|difference| format!(": {difference}")).unwrap_or_default()
    )]
    Parted {
        /// The order.
        order: Order,
        /// Where it parts.
        parting: Box<Parting>,
    },
}

/// Gives the recording to subjects that `new` makes: as it arrived, and in one random causal order for each seed. All must
/// take it, and come to the same state. It holds your own code against a history:
///
/// ```
/// use std::collections::BTreeMap;
/// use std::convert::Infallible;
///
/// use concord_server::replay::{Recorded, Recording, Subject, check};
///
/// /// Counts what each replica did.
/// #[derive(Default)]
/// struct Statistics(BTreeMap<String, usize>);
///
/// impl Subject for Statistics {
///     type State = BTreeMap<String, usize>;
///     type Error = Infallible;
///
///     fn apply(&mut self, change: &Recorded) -> Result<(), Infallible> {
///         *self.0.entry(change.actor().to_string()).or_default() += change.ops();
///         Ok(())
///     }
///
///     fn state(&mut self) -> Result<Self::State, Infallible> {
///         Ok(self.0.clone())
///     }
/// }
///
/// let mut document = automerge::AutoCommit::new();
/// # automerge::transaction::Transactable::put(&mut document, automerge::ROOT, "title", "Minutes")?;
/// let recording = Recording::from_automerge(document.save())?;
/// check(&recording, 0..10, Statistics::default)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check<S: Subject>(
    recording: &Recording,
    seeds: impl IntoIterator<Item = u64>,
    new: impl Fn() -> S,
) -> Result<(), Fault> {
    let player = Player::new(recording, new);
    let arrival = player.play(&Order::Arrival.of(recording), |_| {});
    if let Outcome::Failed { after, why } = arrival {
        return Err(Fault::Failed { after, why });
    }
    for order in seeds.into_iter().map(Order::Random) {
        let other = order.of(recording);
        if player.play(&other, |_| {}) != arrival
            && let Some(parting) = player.parting(&other)
        {
            let parting = Box::new(parting);
            return Err(Fault::Parted { order, parting });
        }
    }
    Ok(())
}

impl<'a, S: Subject, New: Fn() -> S> Player<'a, New> {
    /// Plays this recording to what `new` makes.
    pub fn new(recording: &'a Recording, new: New) -> Self {
        Self {
            recording,
            new,
            piece: recording.len().div_ceil(MOST_PIECES).max(1),
        }
    }

    /// Gives the changes at these places to a fresh subject. `progress` is told how many more it has taken. A panic of the
    /// subject is a failure like any other: it is dropped, and nothing of it is used again.
    pub fn play(&self, order: &[usize], mut progress: impl FnMut(usize)) -> Outcome<S::State> {
        let mut after = 0;
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut subject = (self.new)();
            for piece in order.chunks(self.piece) {
                let changes = piece
                    .iter()
                    .filter_map(|at| self.recording.changes().get(*at));
                let changes: Vec<&Recorded> = changes.collect();
                subject.apply_all(&changes)?;
                after += changes.len();
                progress(changes.len());
            }
            subject.state()
        }));
        let why = match played {
            Ok(Ok(state)) => return Outcome::Came(state),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("panicked: {}", message(panic.as_ref())),
        };
        Outcome::Failed { after, why }
    }

    /// The smallest prefix of the recording whose changes make two states: in the order of arrival, and in the order that
    /// they have in `other`. `None` if the whole recording makes one.
    ///
    /// It is looked for by halving, in 2 · log₂ replays. Where states that have parted come together again and part
    /// anew, it may be one of the later prefixes; one change fewer makes one state in any case.
    pub fn parting(&self, other: &[usize]) -> Option<Parting> {
        let mut parted = other.len();
        let mut difference = self.difference_at(parted, other)?;
        let mut same = 0;
        while same + 1 < parted {
            let middle = usize::midpoint(same, parted);
            match self.difference_at(middle, other) {
                None => same = middle,
                Some(found) => (parted, difference) = (middle, found),
            }
        }
        let last = self.recording.changes().get(parted.checked_sub(1)?)?;
        Some(Parting {
            prefix: parted,
            change: last.hash(),
            actor: last.actor().clone(),
            seq: last.seq(),
            difference,
        })
    }

    /// Whether the first changes make two states; and if, how these differ.
    #[expect(clippy::option_option, reason = "how they differ is not always known")]
    fn difference_at(&self, prefix: usize, other: &[usize]) -> Option<Option<String>> {
        let arrival: Vec<usize> = (0..prefix).collect();
        let within: HashSet<usize> = arrival.iter().copied().collect();
        let other = other.iter().copied().filter(|at| within.contains(at));
        let other: Vec<usize> = other.collect();
        let one = self.play(&arrival, |_| {});
        let other = self.play(&other, |_| {});
        match (one, other) {
            (Outcome::Came(one), Outcome::Came(other)) => {
                (one != other).then(|| S::difference(&one, &other))
            }
            // That it fails in both orders has nothing to do with the order.
            (Outcome::Failed { .. }, Outcome::Failed { .. }) => None,
            (Outcome::Failed { why, .. }, Outcome::Came(_))
            | (Outcome::Came(_), Outcome::Failed { why, .. }) => Some(Some(why)),
        }
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message")
}
