//! Who is asking, and what they may do.
//!
//! - [`authority`]: who is believed, by the settings.
//! - [`identity`]: who asks.
//! - [`keys`]: whose signatures are believed.
//! - [`keyring`]: from where keys come, and that they change while the server runs.
//! - [`token`]: from a signed token and the time to [`Claims`], or why not.
//! - [`signing`]: keys and tokens of one's own.
//! - [`policy`]: from who asks, and what is known of a document, to what they may do with it.
//! - [`search`]: where the documents are that somebody is told of.
//! - [`labelling`]: that for documents which were stored before it was.
//! - [`grants`]: that as a value, without which no document is opened, read or written; it goes by what is known at
//!   each moment.

pub mod authority;
pub mod grants;
pub mod identity;
pub mod keyring;
pub mod keys;
pub mod labelling;
pub mod policy;
pub mod search;
pub mod signing;
pub mod token;
pub mod webhook;

pub use authority::{Authority, Unidentified};
pub use grants::{Grant, Grants, Operator};
pub use identity::Identity;
pub use keyring::Pace;
pub use keys::{KeyError, KeySet};
pub use policy::Rules;
pub use search::Search;
pub use token::{Claims, Expected, TokenError, Tokens};
pub use webhook::Webhook;
