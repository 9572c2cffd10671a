//! Walks over the change graph. All go from high index to low, which is from late to early, and stop
//! as soon as the answer is known, so that peers and changes close to the heads cost little.

use std::collections::BinaryHeap;
use std::convert::Infallible;

use automerge::ChangeHash;
use rustc_hash::FxHashMap;

use super::{Graph, Index};

impl Graph {
    /// The heads, sorted, of what somebody holds who has every change below `to` but `unsent`, which is
    /// in index order and holds with a change all that builds on it. Cost: O(`to`).
    pub fn heads_without(&self, to: Index, unsent: &[Index]) -> Vec<ChangeHash> {
        let mut covered = Marks::new(to);
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
        let heads = self
            .visible_heads()
            .iter()
            .filter_map(|head| self.find(head));
        let unlimited = self.not_below(heads, roots, &mut |_| Ok::<(), Infallible>(()));
        match unlimited {
            Ok(missing) => missing,
            Err(never) => match never {},
        }
    }

    /// The admitted changes that are neither in `roots` nor below one of them, in index order. Calls `visit`
    /// for each change looked at, with the number of its deps, and stops at its error. Cost: as above.
    pub fn admitted_not_below<E>(
        &self,
        roots: &[Index],
        visit: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Vec<Index>, E> {
        self.not_below(self.admitted_heads().iter().copied(), roots, visit)
    }

    fn not_below<E>(
        &self,
        heads: impl Iterator<Item = Index>,
        roots: &[Index],
        visit: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Vec<Index>, E> {
        // What is known of a queued change: whether a root has it. Children have higher indexes, so
        // by the time a change is popped every child has had its say.
        let mut held: FxHashMap<Index, bool> = FxHashMap::default();
        let mut queue = BinaryHeap::new();
        let mut wanted = 0_usize;
        for head in heads {
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
            visit(self.deps(index).len())?;
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
        Ok(missing)
    }
}

/// A bit for each of the first changes.
struct Marks(Vec<u64>);

impl Marks {
    /// No marks, on so many.
    fn new(changes: Index) -> Self {
        Self(vec![0; changes as usize / 64 + 1])
    }

    /// Marks a change, unless it is out of range.
    fn mark(&mut self, index: Index) {
        if let Some(word) = self.0.get_mut(index as usize / 64) {
            *word |= 1 << (index % 64);
        }
    }

    fn is_marked(&self, index: Index) -> bool {
        let word = self.0.get(index as usize / 64);
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}
