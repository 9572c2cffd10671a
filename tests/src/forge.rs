//! Changes that no honest software writes, and what must hold of those that are taken all the same.
//!
//! The kit for testing admission: [`honest`] makes random histories with Automerge's own API,
//! [`model`] takes their changes apart and puts them together again, [`mutate`] makes them wrong by
//! a little, [`arbitrary`] makes changes of any ops at all, [`attack`] puts such into a history, [`facts`]
//! are wrong changes made by hand, and [`oracle`] says whether Automerge survives a set of changes: in any
//! order, saved,
//! loaded and edited on. Decisions come from a [`source`]: a seed, or a fuzzer's input.
//!
//! The fuzz crate includes this file by its path; so it needs nothing but `automerge`, `bytes` and
//! `sha2`, and its modules say where they are.

#[path = "forge/arbitrary.rs"]
pub mod arbitrary;
#[path = "forge/attack.rs"]
pub mod attack;
#[path = "forge/columns.rs"]
pub mod columns;
#[path = "forge/context.rs"]
pub mod context;
#[path = "forge/dump.rs"]
pub mod dump;
#[path = "forge/edits.rs"]
pub mod edits;
#[path = "forge/facts.rs"]
pub mod facts;
#[path = "forge/headers.rs"]
pub mod headers;
#[path = "forge/honest.rs"]
pub mod honest;
#[path = "forge/model.rs"]
pub mod model;
#[path = "forge/mutate.rs"]
pub mod mutate;
#[path = "forge/oracle.rs"]
pub mod oracle;
#[path = "forge/quiet.rs"]
pub mod quiet;
#[path = "forge/raw.rs"]
pub mod raw;
#[path = "forge/reduce.rs"]
pub mod reduce;
#[path = "forge/renaming.rs"]
pub mod renaming;
#[path = "forge/source.rs"]
pub mod source;
