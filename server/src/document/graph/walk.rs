//! Walks over the change graph. All go from high index to low, which is from late to early, and stop
//! as soon as the answer is known, so that peers and changes close to the heads cost little.

use std::collections::BinaryHeap;

use automerge::ChangeHash;
use rustc_hash::FxHashMap;

use super::{Graph, Index};

impl Graph {
    /// Whether `ancestor` is one of `of` or below one of them. Looks only at changes above `ancestor`;
    /// [`Self::steps_to`] tells at how many.
    pub fn is_ancestor_of_any(&self, ancestor: Index, of: &[Index]) -> bool {
        if of.contains(&ancestor) {
            return true;
        }
        let mut below = Marks::new(ancestor, self.steps_to(ancestor, of));
        for index in of {
            below.mark(*index);
        }
        for index in (ancestor + 1..below.end()).rev() {
            if !below.is_marked(index) {
                continue;
            }
            for dep in self.deps(index) {
                if *dep == ancestor {
                    return true;
                }
                below.mark(*dep);
            }
        }
        false
    }

    /// How many changes lie between `ancestor` and the latest of `of` in the order of admission.
    pub fn steps_to(&self, ancestor: Index, of: &[Index]) -> Index {
        let latest = of.iter().copied().max().unwrap_or(0);
        latest.saturating_sub(ancestor)
    }

    /// The heads, sorted, of what somebody holds who has every change below `to` but `unsent`, which is
    /// in index order and holds with a change all that builds on it. Cost: O(`to`).
    pub fn heads_without(&self, to: Index, unsent: &[Index]) -> Vec<ChangeHash> {
        let mut covered = Marks::new(0, to);
        let mut unsent = unsent.iter().rev().copied().peekable();
        let mut heads = Vec::new();
        for index in (0..to).rev() {
            if unsent.next_if_eq(&index).is_some() {
                continue;
            }
            if !covered.is_marked(index) {
                heads.extend(self.hash(index).copied());
            }
            for dep in self.deps(index) {
                covered.mark(*dep);
            }
        }
        heads.sort_unstable();
        heads
    }

    /// The visible changes that are neither in `roots` nor below one of them, in index order.
    ///
    /// Cost: O(changes returned + changes concurrent with them), times the logarithm of the walk's
    /// width.
    pub fn visible_not_below(&self, roots: &[Index]) -> Vec<Index> {
        // What is known of a queued change: whether a root has it. Children have higher indexes, so
        // by the time a change is popped every child has had its say.
        let mut held: FxHashMap<Index, bool> = FxHashMap::default();
        let mut queue = BinaryHeap::new();
        let mut wanted = 0_usize;
        for head in self.visible_heads().iter().filter_map(|h| self.find(h)) {
            if held.insert(head, false).is_none() {
                queue.push(head);
                wanted += 1;
            }
        }
        for root in roots {
            match held.insert(*root, true) {
                None => queue.push(*root),
                Some(false) => wanted -= 1,
                Some(true) => {}
            }
        }
        let mut missing = Vec::new();
        while wanted > 0 {
            let Some(index) = queue.pop() else { break };
            let is_held = held.remove(&index).unwrap_or(false);
            if !is_held {
                wanted -= 1;
                missing.push(index);
            }
            for dep in self.deps(index) {
                match held.get_mut(dep) {
                    None => {
                        held.insert(*dep, is_held);
                        queue.push(*dep);
                        wanted += usize::from(!is_held);
                    }
                    Some(known) if is_held && !*known => {
                        *known = true;
                        wanted -= 1;
                    }
                    Some(_) => {}
                }
            }
        }
        missing.reverse();
        missing
    }
}

/// A bit for each change of a range.
struct Marks {
    from: Index,
    words: Vec<u64>,
}

impl Marks {
    /// No marks, on `from` and the `steps` changes after it.
    fn new(from: Index, steps: Index) -> Self {
        Self {
            from,
            words: vec![0; steps as usize / 64 + 1],
        }
    }

    /// One more than the last change that may have a mark.
    fn end(&self) -> Index {
        let bits = Index::try_from(self.words.len() * 64).unwrap_or(Index::MAX);
        self.from.saturating_add(bits)
    }

    /// Marks a change, unless it is out of range.
    fn mark(&mut self, index: Index) {
        if let Some(bit) = index.checked_sub(self.from)
            && let Some(word) = self.words.get_mut(bit as usize / 64)
        {
            *word |= 1 << (bit % 64);
        }
    }

    fn is_marked(&self, index: Index) -> bool {
        let bit = index.saturating_sub(self.from);
        let word = self.words.get(bit as usize / 64);
        word.is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }
}
