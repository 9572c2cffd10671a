use bytes::Bytes;
use concord_shared::access::{AccessList, Subject};

use super::*;
use crate::store::{Durability, MemoryStore, Write};

fn id(n: u8) -> DocumentId {
    DocumentId::from_uuid([n; 16])
}

fn who(name: &str) -> PrincipalId {
    PrincipalId::new(name).unwrap()
}

fn ledger(documents: u64, mib: u64, document_mib: u64) -> Ledger {
    let config = Config {
        max_documents_per_principal: documents,
        max_mib_per_principal: mib,
        max_document_mib: document_mib,
        ..Config::default()
    };
    Ledger::new(&config, false)
}

fn had(ledger: &Ledger, name: &str) -> (u64, u64) {
    let purse = ledger.purse(&who(name));
    let Purse { documents, bytes } = &*purse;
    (
        documents.load(Ordering::Relaxed),
        bytes.load(Ordering::Relaxed),
    )
}

const MIB: u64 = 1 << 20;

#[test]
fn what_is_stored_is_its_makers_whoever_wrote_it() {
    let store = MemoryStore::new();
    let said = |document, number, by: &str| Write::Access {
        document,
        number,
        entry: Entry {
            at_ms: 0,
            by: by.to_owned(),
            list: AccessList::default(),
        }
        .encode(),
        labels: Vec::new(),
    };
    let change = |document, first, bytes: usize| Write::Append {
        document,
        first,
        received_at_ms: 0,
        principal: who("eve"),
        changes: vec![Bytes::from(vec![0; bytes])],
    };
    let snapshot = |document, bytes: usize| Write::Snapshot {
        document,
        base: 1,
        keep_from: 1,
        received_at_ms: 0,
        snapshot: Bytes::from(vec![0; bytes]),
        graph: Bytes::from_static(b"graph"),
        arrivals: Bytes::new(),
    };
    let writes = [
        said(id(1), 0, "ann"),
        change(id(1), 0, 10),
        change(id(1), 1, 20),
        said(id(1), 1, "bob"),
        said(id(2), 0, "ann"),
        snapshot(id(2), 100),
        change(id(2), 1, 3),
        said(id(3), 0, "bob"),
        snapshot(id(3), 1000),
        // Nobody's, deleted and kept, and one of which there is no more than who may make it.
        change(id(4), 0, 5),
        said(id(5), 0, "ann"),
        change(id(5), 0, 7),
        Write::Delete {
            document: id(5),
            at_ms: 0,
            by: who("ann"),
            bytes: 7,
        },
        said(id(6), 0, "ann"),
    ];
    store.commit(&writes, Durability::Strict).unwrap();
    let ledger = ledger(10, 10, 10);
    ledger.read(&store).unwrap();
    // Deleted ones count as long as they are kept.
    let list = said(id(1), 0, "ann").payload_bytes() as u64;
    assert_eq!(had(&ledger, "ann"), (3, 140 + 3 * list));
    assert_eq!(ledger.kept(&store, &id(1)).unwrap(), None);
    let kept = ledger.kept(&store, &id(5)).unwrap().unwrap();
    let document = id(5);
    store
        .commit(&[Write::Purge { document, by: None }], Durability::Strict)
        .unwrap();
    assert_eq!(ledger.kept(&store, &id(5)).unwrap(), None);
    ledger.purged(&kept);
    assert_eq!(had(&ledger, "ann"), (2, 133 + 3 * list));
    assert_eq!(had(&ledger, "bob"), (1, 1000 + list));
    assert_eq!(had(&ledger, "eve"), (0, 0));
    let of_ann = Said {
        maker: Some(who("ann")),
        bytes: 2 * list,
    };
    assert_eq!(ledger.said(&store, &id(1)).unwrap(), of_ann);
    assert_eq!(ledger.said(&store, &id(4)).unwrap(), Said::default());
    // Where there is nothing to hold against it nothing is read.
    let none = self::ledger(0, 0, 1);
    none.read(&store).unwrap();
    assert!(none.purses.lock().unwrap().is_empty());
}

#[test]
fn so_many_documents_and_one_more_when_one_is_gone() {
    let ledger = ledger(2, 0, 0);
    let ann = who("ann");
    let mut bills = Vec::new();
    for _ in 0..2 {
        assert_eq!(ledger.may_make(&ann, 0), Ok(()));
        let mut bill = Bill::default();
        ledger.charge(&mut bill, &ann);
        // Once.
        ledger.charge(&mut bill, &ann);
        bills.push(bill);
    }
    let over = ledger.may_make(&ann, 0).unwrap_err();
    assert_eq!(over.limit, Limit::Documents);
    assert_eq!(ledger.may_make(&who("bob"), 0), Ok(()));
    bills[0].is(500);
    bills[0].keep();
    // It is somebody else's to say from here on.
    bills[0].is(0);
    assert_eq!(had(&ledger, "ann"), (2, 500));
    assert!(ledger.may_make(&ann, 0).is_err());
    let kept = Kept {
        maker: ann.clone(),
        bytes: 500,
    };
    ledger.purged(&kept);
    assert_eq!(had(&ledger, "ann"), (1, 0));
    assert_eq!(ledger.may_make(&ann, 0), Ok(()));
}

#[test]
fn who_has_nothing_is_not_remembered() {
    let ledger = ledger(2, 0, 0);
    let remembered = || ledger.purses().len();
    let ann = who("ann");
    for n in 0..100 {
        assert_eq!(ledger.may_make(&who(&format!("asks {n}")), 0), Ok(()));
    }
    assert_eq!(remembered(), 0);
    let mut bill = Bill::default();
    ledger.charge(&mut bill, &ann);
    let kept = Kept {
        maker: ann.clone(),
        bytes: 0,
    };
    // Their document is open.
    ledger.purged(&kept);
    assert_eq!(remembered(), 1);
    ledger.charge(&mut Bill::default(), &ann);
    drop(bill);
    ledger.purged(&kept);
    assert_eq!(remembered(), 0);
}

#[test]
fn one_caller_leaves_places_of_a_document_to_others() {
    let ledger = |peers| {
        let config = Config {
            max_peers_per_document: peers,
            ..Config::default()
        };
        Ledger::new(&config, false)
    };
    let enter = |ledger: &Ledger, role, peers, own| {
        let entered = ledger.may_enter(role, peers, || own);
        entered.is_ok()
    };
    let may = |ledger: &Ledger, peers, own| enter(ledger, Role::Writer, peers, own);
    let twenty = ledger(20);
    assert!(may(&twenty, 0, 0) && may(&twenty, 19, 1));
    assert!(!may(&twenty, 2, 2) && !may(&twenty, 20, 0));
    // Some are kept for those who write.
    let read = |peers| enter(&twenty, Role::Reader, peers, 0);
    assert!(read(17) && !read(18));
    assert!(enter(&twenty, Role::Owner, 19, 0));
    // Small ones are for somebody, too.
    let two = ledger(2);
    assert!(may(&two, 1, 0) && !may(&two, 1, 1));
    assert!(may(&ledger(0), 1_000_000, 1_000_000));
}

#[test]
fn what_was_never_made_counts_only_while_it_is_open() {
    let ledger = ledger(1, 1, 1);
    let ann = who("ann");
    let mut bill = Bill::default();
    bill.first_list(40);
    ledger.charge(&mut bill, &ann);
    assert_eq!(had(&ledger, "ann"), (1, 40));
    assert_eq!(ledger.may_begin(&bill), Ok(()));
    ledger.never_made(&mut bill);
    assert_eq!(had(&ledger, "ann"), (0, 0));
    // Another one, in its place; and the first is opened again.
    let mut other = Bill::default();
    ledger.charge(&mut other, &ann);
    let said = Said {
        maker: Some(ann),
        bytes: 40,
    };
    let mut again = ledger.bill(&said, 0);
    assert_eq!(had(&ledger, "ann"), (2, 40));
    let over = ledger.may_begin(&again).unwrap_err();
    assert_eq!(over.limit, Limit::Documents);
    ledger.never_made(&mut again);
    assert_eq!(had(&ledger, "ann"), (1, 0));
}

#[test]
fn so_many_bytes_of_all_documents_and_of_each() {
    let ledger = ledger(0, 3, 2);
    let ann = who("ann");
    let (mut one, mut other) = (Bill::default(), Bill::default());
    for bill in [&mut one, &mut other] {
        ledger.charge(bill, &ann);
    }
    assert_eq!(ledger.promise(&mut one, 2 * MIB), Ok(()));
    assert_eq!(
        ledger.promise(&mut one, 1).unwrap_err().limit,
        Limit::DocumentBytes
    );
    assert_eq!(
        ledger.promise(&mut other, MIB + 1).unwrap_err().limit,
        Limit::StoredBytes
    );
    assert_eq!(other.bytes(), 0, "what was not promised counts");
    assert_eq!(ledger.promise(&mut other, MIB), Ok(()));
    assert_eq!(ledger.room(&one).unwrap_err().limit, Limit::DocumentBytes);
    assert_eq!(ledger.room(&other).unwrap_err().limit, Limit::StoredBytes);
    assert_eq!(
        ledger.may_make(&ann, 0).unwrap_err().limit,
        Limit::StoredBytes
    );
    // As a snapshot it takes less.
    one.is(100);
    assert_eq!(ledger.may_make(&ann, 2 * MIB - 100), Ok(()));
    let over = ledger.may_make(&ann, 2 * MIB - 99).unwrap_err();
    assert_eq!(over.limit, Limit::StoredBytes);
    assert_eq!(had(&ledger, "ann"), (2, 100 + MIB));
    assert_eq!(ledger.room(&other), Ok(()));
    // One that nobody answers for.
    let mut nobodys = ledger.bill(&Said::default(), 2 * MIB - 1);
    assert_eq!(ledger.promise(&mut nobodys, 1), Ok(()));
    assert!(ledger.promise(&mut nobodys, 1).is_err());
}
#[test]
fn all_that_was_said_is_counted_however_much_it_is() {
    let store = MemoryStore::new();
    let mut all = 0;
    for number in 0..100 {
        let by = if number == 0 { "ann" } else { "bob" };
        let mut list = AccessList::default();
        for n in 0..number * 2 {
            let name = format!("{n}{}", "x".repeat(150));
            list.set(Subject::Principal(&name), Role::Reader);
        }
        let entry = Entry {
            at_ms: 0,
            by: by.to_owned(),
            list,
        };
        let write = Write::Access {
            document: id(1),
            number,
            entry: entry.encode(),
            labels: Vec::new(),
        };
        all += write.payload_bytes() as u64;
        store.commit(&[write], Durability::Strict).unwrap();
    }
    assert!(all > LOG_BYTES_PER_READ);
    let said = ledger(1, 1, 1).said(&store, &id(1)).unwrap();
    assert_eq!((said.maker, said.bytes), (Some(who("ann")), all));
}

#[test]
fn lists_take_room_and_a_few_may_always_be_given() {
    let ledger = ledger(0, 1, 0);
    let ann = who("ann");
    let mut bill = Bill::default();
    bill.first_list(100);
    ledger.charge(&mut bill, &ann);
    assert_eq!(ledger.promise(&mut bill, MIB - 100), Ok(()));
    // Somebody has filled it, and can be put out.
    let list = 48 << 10;
    for n in 1..=5 {
        assert_eq!(ledger.list(&mut bill, list), Ok(()), "{n}");
        assert_eq!(had(&ledger, "ann"), (1, MIB + n * list));
    }
    let over = ledger.list(&mut bill, list).unwrap_err();
    assert_eq!(over.limit, Limit::StoredBytes);
    assert_eq!(had(&ledger, "ann"), (1, MIB + 5 * list));
    // Where there is room there may be more, and contents have what is left.
    bill.is(0);
    assert_eq!(had(&ledger, "ann"), (1, 100 + 5 * list));
    assert_eq!(ledger.list(&mut bill, list), Ok(()));
    bill.is(7);
    assert_eq!(had(&ledger, "ann"), (1, 107 + 6 * list));
    assert_eq!(bill.bytes(), 107 + 6 * list);
    assert!(ledger.promise(&mut bill, MIB - 6 * list).is_err());
}
