//! Accounts by whom they are of: those that are held, and so many others, of whom was heard last.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// See the module's docs. Locked for each connection and request, not for each message.
#[derive(Debug)]
pub struct Book<K, A> {
    pages: Mutex<Pages<K, A>>,
    most: usize,
}

#[derive(Debug)]
struct Pages<K, A> {
    of: HashMap<K, Page<A>>,
    /// Looked through when there are so many.
    prune_at: usize,
    /// How many times somebody was looked up.
    looked: u64,
}

#[derive(Debug)]
struct Page<A> {
    account: Arc<A>,
    /// When it was last looked up, by `looked`.
    used: u64,
}

impl<K: Eq + Hash + Clone, A> Book<K, A> {
    /// Remembers about so many whom nobody holds.
    pub fn new(most: usize) -> Self {
        Self {
            pages: Mutex::new(Pages {
                of: HashMap::new(),
                prune_at: most,
                looked: 0,
            }),
            most,
        }
    }

    /// Somebody's account, made if they are not remembered.
    pub fn get(&self, key: K, make: impl FnOnce() -> A) -> Arc<A> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.looked += 1;
        let used = pages.looked;
        if let Some(page) = pages.of.get_mut(&key) {
            page.used = used;
            return Arc::clone(&page.account);
        }
        if pages.of.len() >= pages.prune_at {
            pages.prune(self.most);
        }
        let account = Arc::new(make());
        let page = Page {
            account: Arc::clone(&account),
            used,
        };
        pages.of.insert(key, page);
        account
    }
}

impl<K: Eq + Hash + Clone, A> Pages<K, A> {
    /// Drops the older half of those whom nobody holds, and leaves half of `most` of them at most. So many, so that this
    /// is done once for many that are new; and where most are held, not before there are twice as many as those.
    fn prune(&mut self, most: usize) {
        let loose = self.of.values().filter(|page| page.is_loose());
        let mut used: Vec<_> = loose.map(|page| page.used).collect();
        let held = self.of.len() - used.len();
        let kept = used.len().min(most) / 2;
        let oldest_kept = match used.len() - kept {
            // `kept` is none.
            all if all == used.len() => u64::MAX,
            older => *used.select_nth_unstable(older).1,
        };
        self.of
            .retain(|_, page| !page.is_loose() || page.used >= oldest_kept);
        self.prune_at = most.max(2 * held);
    }
}

impl<A> Page<A> {
    fn is_loose(&self) -> bool {
        Arc::strong_count(&self.account) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<K, A> Book<K, A> {
        fn len(&self) -> usize {
            self.pages.lock().unwrap().of.len()
        }
    }

    #[test]
    fn who_is_held_is_kept_and_of_the_others_who_was_heard_of_last() {
        let book = Book::new(100);
        let held: Vec<_> = (0..10).map(|n| book.get(n, || n)).collect();
        for n in 10..10_000 {
            book.get(n, || n);
            // Heard of again and again.
            assert_eq!(*book.get(10, || 0), 10, "at {n}");
            assert!(book.len() <= 100, "{} at {n}", book.len());
        }
        for (n, account) in held.iter().enumerate() {
            assert!(Arc::ptr_eq(account, &book.get(n, || 0)));
        }
        assert_eq!(*book.get(9_999, || 0), 9_999);
        assert_eq!(*book.get(11, || 0), 0, "was forgotten");
    }

    #[test]
    fn those_who_are_held_do_not_make_it_slow_and_go_when_they_are_not() {
        let book = Book::new(10);
        let held: Vec<_> = (0..1000).map(|n| book.get(n, || n)).collect();
        assert_eq!(book.len(), 1000);
        assert!(book.pages.lock().unwrap().prune_at > 1000);
        drop(held);
        for n in 1000..10_000 {
            book.get(n, || n);
        }
        assert!(book.len() <= 10, "{}", book.len());
    }
}
