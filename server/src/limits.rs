//! Limits against abuse: how much of the server one caller may have, so that others have the rest.
//!
//! A caller is a principal, or, where nobody said who they are, an address ([`Who`]). What is counted before it is known
//! who asks is counted by address: connections, and requests without a token that is believed.
//!
//! - [`bucket`]: so many in a while. Pure but for its clock and its queue.
//! - [`account`]: what is counted of one caller, and of one address.
//! - [`doors`]: an address with the networks that it is in.
//! - [`book`]: the accounts of those who were heard of lately; bounded.
//! - [`ledger`]: what is stored of each principal's documents.
//!
//! **What is done about whoever is over a limit** depends on what is lost by it. A message on a WebSocket *waits*: nothing
//! more is read from that socket meanwhile, so its client feels it as a slow line, and no change is lost, which dropping one
//! would do silently. Who would wait for longer than a peer may stall is told so and closed: they keep what was not
//! acknowledged, and send it again. A request over HTTP is refused with the time after which it can be made again, since
//! its client has it still. A connection is refused before it has cost anything. What is beyond a quota is refused: waiting
//! would not help.
//!
//! **Cost.** A connection finds its account once, and holds it. A message costs two atomic numbers that it shares with the
//! same caller's other connections and with nobody else's, and no allocation; waiting is what costs more.
//!
//! **Whom an attacker can be.** Anybody at as many addresses as they have. IPv6 addresses count by /64, of which a host
//! has all, and with the networks around that, of which a line has one ([`doors`]). The book forgets who was not heard of for longest when it is full, so addresses fill no memory; somebody with
//! so many that this wipes their own slate could as well use a fresh one each time.

pub mod account;
pub mod book;
pub mod bucket;
pub mod doors;
pub mod ledger;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use self::account::{Account, Door, Place};
use self::book::Book;
use self::bucket::Rate;
use self::doors::{Doors, Network};
use self::ledger::Ledger;
use crate::config::Config;
use crate::connection::backoff::Who;
use crate::http::proxies::Proxies;
use crate::listener;

/// Callers, and addresses, that are remembered though they have nothing open, at about a kilobyte each. With those that
/// have something open there may be as many more as there may be connections.
const MOST_REMEMBERED: usize = 8192;

/// An address, or a network, has at most one of so many parts of all TCP connections, whatever the settings say.
const LEAST_WHO_FILL_IT: usize = 4;

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $what:literal;)*) => {
        /// What is limited, as metrics and errors name it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Limit {
            $($(#[doc = $doc])* $name,)*
        }

        impl Limit {
            /// All of them.
            pub const ALL: &'static [Limit] = &[$(Limit::$name,)*];

            /// The label of the metric.
            pub const fn as_str(self) -> &'static str {
                match self { $(Limit::$name => $text,)* }
            }

            /// What there was too much of, for people.
            pub const fn what(self) -> &'static str {
                match self { $(Limit::$name => $what,)* }
            }
        }
    };
}

limits! {
    /// TCP connections of an address, by time.
    Arrivals = "arrivals", "new connections from one address";
    /// TCP connections of an address that are no `WebSockets` yet.
    OpenConnections = "open-connections", "connections from one address";
    /// Connections that do not get on with TLS, or with what they ask for.
    Handshakes = "handshakes", "connections that ask for nothing";
    /// Bodies of requests that come too slowly.
    SlowBodies = "slow-bodies", "slow bodies of requests";
    /// Turns of a caller at what is costly, that are waited for for long.
    Turns = "turns", "costly requests and messages of one caller at a time";
    /// Requests of an address that bring no token that is believed.
    Unauthenticated = "unauthenticated", "requests from one address without a token that is believed";
    /// Requests of an address for what nobody needs a token for.
    OpenRequests = "open-requests", "requests from one address for what is open to all";
    /// `WebSockets` and streams of events of a caller.
    Connections = "connections", "connections of one caller";
    /// Documents that a caller has open, or waits for, on all connections.
    OpenDocuments = "open-documents", "open documents of one caller";
    /// Requests of a caller.
    Requests = "requests", "requests of one caller";
    /// Messages of a caller.
    Messages = "messages", "messages of one caller";
    /// Their bytes.
    Bytes = "bytes", "bytes of one caller";
    /// Changes in them.
    Changes = "changes", "changes of one caller";
    /// Documents that a caller makes.
    NewDocuments = "new-documents", "new documents of one caller";
    /// Questions to an application about what a principal may do.
    Questions = "questions", "questions about one principal";
    /// Documents that a principal has made, and are there.
    Documents = "documents", "documents of one principal";
    /// Their bytes.
    StoredBytes = "stored-bytes", "stored bytes of one principal";
    /// Bytes of a document.
    DocumentBytes = "document-bytes", "stored bytes of one document";
    /// Connections that have a document open, in all and of a caller.
    Peers = "peers", "peers of one document";
}

/// Somebody is over a limit, and may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many {}: try again in {} s", limit.what(), seconds(*wait))]
pub struct Limited {
    /// Which.
    pub limit: Limit,
    /// When.
    pub wait: Duration,
}

impl Limited {
    /// In whole seconds, as `Retry-After` has it.
    pub fn seconds(&self) -> u64 {
        seconds(self.wait)
    }
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// As the settings have it. None: no limit.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    arrivals: Option<Rate>,
    /// Connections of an address, and of any network.
    open: usize,
    most_open: usize,
    unauthenticated: Option<Rate>,
    open_requests: Option<Rate>,
    connections: Option<usize>,
    open_documents: Option<usize>,
    requests: Option<Rate>,
    messages: Option<Rate>,
    bytes: Option<Rate>,
    changes: Option<Rate>,
    new_documents: Option<Rate>,
}

impl Settings {
    fn of(config: &Config) -> Self {
        let second = |number| Rate::new(number, Duration::from_secs(1));
        let cap = |number: usize| (number > 0).then_some(number);
        let most_open = listener::slots(config.max_connections) / LEAST_WHO_FILL_IT;
        let cells = (config.received_mib_per_second << 20) / account::BYTES_PER_CELL;
        Self {
            arrivals: second(config.connections_per_second),
            open: cap(config.max_connections_per_address).unwrap_or(most_open),
            most_open,
            unauthenticated: second(config.unauthenticated_per_second),
            open_requests: second(config.open_requests_per_second),
            connections: cap(config.max_connections_per_caller),
            open_documents: cap(config.max_open_documents_per_caller),
            requests: second(config.requests_per_second),
            messages: second(config.messages_per_second),
            bytes: second(cells),
            changes: second(config.changes_per_second),
            new_documents: Rate::new(config.new_documents_per_minute, Duration::from_mins(1)),
        }
    }

    /// Connections of what may have so many times as much as an address.
    fn open_of(&self, times: NonZeroU32) -> usize {
        let open = self.open.saturating_mul(times.get() as usize);
        open.min(self.most_open)
    }
}

/// Everybody's accounts. One for the server.
#[derive(Debug)]
pub struct Callers {
    settings: Settings,
    proxies: Proxies,
    accounts: Book<Who, Account>,
    doors: Book<Network, Door>,
    /// What is stored.
    pub ledger: Arc<Ledger>,
}

impl Callers {
    /// By the settings. Connections from these proxies are others', whom only their requests tell apart.
    pub fn new(config: &Config, proxies: Proxies, ledger: Arc<Ledger>) -> Self {
        Self {
            settings: Settings::of(config),
            proxies,
            accounts: Book::new(MOST_REMEMBERED),
            doors: Book::new(MOST_REMEMBERED),
            ledger,
        }
    }

    /// A caller's account.
    pub fn account(&self, who: Who) -> Arc<Account> {
        self.accounts.get(who, || Account::new(&self.settings))
    }

    /// What is counted of whoever is at an address.
    pub fn doors(&self, address: IpAddr) -> Doors {
        Doors::of(address, |network, times| {
            self.doors.get(network, || Door::new(&self.settings, times))
        })
    }

    /// The same, unless a proxy is there, who asks for others.
    pub fn doors_of_no_proxy(&self, address: IpAddr) -> Option<Doors> {
        let address = address.to_canonical();
        (!self.proxies.trusts(address)).then(|| self.doors(address))
    }

    /// A TCP connection, until its places are dropped, and whether they come too fast. None: its address has too many, or
    /// more than few where it `is_crowded`.
    pub fn arrive(&self, address: IpAddr, is_crowded: bool) -> Option<(Vec<Place>, bool)> {
        match self.doors_of_no_proxy(address) {
            Some(doors) => doors.arrive(is_crowded),
            None => Some((Vec::new(), false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn callers(max_connections: usize, max_connections_per_address: usize) -> Callers {
        let config = Config {
            max_connections,
            max_connections_per_address,
            connections_per_second: 0,
            ..Config::default()
        };
        let proxies = Proxies::new(&["192.0.2.1".to_owned()]).unwrap();
        let ledger = Arc::new(Ledger::new(&config, false));
        Callers::new(&config, proxies, ledger)
    }

    /// Connects as often as it can, up to so often.
    fn fill(callers: &Callers, from: &str, most: usize) -> Vec<Vec<Place>> {
        let from = from.parse().unwrap();
        let places = std::iter::from_fn(|| callers.arrive(from, false));
        places.take(most).map(|(places, _)| places).collect()
    }

    #[test]
    fn no_address_has_more_than_a_part_of_all_connections() {
        for settings in [0, 5000] {
            let callers = callers(1000, settings);
            let quarter = listener::slots(1000) / 4;
            let open = fill(&callers, "192.0.2.7", 5000);
            assert_eq!(open.len(), quarter, "{settings}");
            assert_eq!(fill(&callers, "2001:db8::1", 5000).len(), quarter);
            assert_eq!(fill(&callers, "192.0.2.8", 5).len(), 5);
            drop(open);
            assert_eq!(fill(&callers, "192.0.2.7", 5).len(), 5);
        }
    }

    #[test]
    fn a_line_with_many_networks_has_no_more_than_a_few_addresses() {
        let callers = callers(1000, 10);
        let mut open = Vec::new();
        let mut fill = |from: &str| {
            let places = fill(&callers, from, 100);
            let number = places.len();
            open.push(places);
            number
        };
        assert_eq!(fill("2001:db8:1:100::1"), 10);
        assert_eq!(fill("2001:db8:1:100::2"), 0, "the same /64");
        assert_eq!(fill("2001:db8:1:1ff::1"), 10);
        assert_eq!(fill("2001:db8:1:180::1"), 0, "the same /56");
        assert_eq!(fill("2001:db8:1:200::1"), 10);
        assert_eq!(fill("2001:db8:1:300::1"), 10);
        assert_eq!(fill("2001:db8:1:400::1"), 0, "the same /48");
        assert_eq!(fill("2001:db8:2:100::1"), 10);
    }

    #[test]
    fn the_last_slots_are_for_addresses_that_have_few_connections() {
        let callers = callers(1000, 100);
        let arrive = |from: &str| callers.arrive(from.parse().unwrap(), true);
        let mut open: Vec<_> = (0..16).map(|_| arrive("192.0.2.7").unwrap()).collect();
        assert!(arrive("192.0.2.7").is_none());
        open.push(arrive("192.0.2.8").unwrap());
        // As a line has few, too.
        for n in 0..64 {
            let address = format!("2001:db8:1:{:x}::1", n << 6);
            open.push(arrive(&address).unwrap());
        }
        assert!(arrive("2001:db8:1::1").is_none());
        open.extend((0..200).map(|_| arrive("192.0.2.1").unwrap()));
        assert_eq!(fill(&callers, "192.0.2.7", 1).len(), 1, "it is not crowded");
    }

    #[test]
    fn who_has_connections_is_not_forgotten_for_others() {
        let callers = callers(1000, 3);
        let open = fill(&callers, "192.0.2.7", 5);
        assert_eq!(open.len(), 3);
        for n in 0..3 * MOST_REMEMBERED {
            let address = Ipv4Addr::from_bits(u32::try_from(n).unwrap());
            callers.doors(address.into());
        }
        assert_eq!(fill(&callers, "192.0.2.7", 1).len(), 0);
        drop(open);
        assert_eq!(fill(&callers, "192.0.2.7", 1).len(), 1);
    }
}
