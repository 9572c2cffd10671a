//! Walks over the change graph. All go from high index to low, which is from late to early, and stop
//! as soon as the answer is known, so that peers and changes close to the heads cost little.

use std::collections::BinaryHeap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Graph, Index};

impl Graph {
    /// Whether `ancestor` is one of `of` or below one of them. Visits only changes above `ancestor`.
    pub fn is_ancestor_of_any(&self, ancestor: Index, of: &[Index]) -> bool {
        if of.contains(&ancestor) {
            return true;
        }
        let mut seen = FxHashSet::default();
        let mut queue: BinaryHeap<Index> = of.iter().copied().filter(|i| *i > ancestor).collect();
        while let Some(index) = queue.pop() {
            for dep in self.deps(index) {
                if *dep == ancestor {
                    return true;
                }
                if *dep > ancestor && seen.insert(*dep) {
                    queue.push(*dep);
                }
            }
        }
        false
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
