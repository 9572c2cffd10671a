//! What is counted by address, of an address and of the networks that it is in.
//!
//! Of IPv6 a host has all of a /64, and a line, as providers give it, a /56 or a /48: hundreds or thousands of those. So what
//! is counted by /64 is counted again by /56 and by /48, which may have some times as much, and whatever is beyond one of the
//! three is refused. An IPv4 address counts by itself.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::account::{Door, Place};
use super::{Limit, Limited};
use crate::metrics::Metrics;

/// Bits that networks of IPv6 have in common, and how many times as much as an address each may have.
const NETWORKS: [(u8, NonZeroU32); 3] = [
    (64, NonZeroU32::MIN),
    (56, NonZeroU32::MIN.saturating_add(1)),
    (48, NonZeroU32::MIN.saturating_add(3)),
];

/// An address of IPv4, or a network of IPv6: its first address, and its bits.
pub type Network = (IpAddr, u8);

/// See the module's docs. From the narrowest to the widest.
#[derive(Debug)]
pub struct Doors(Vec<Arc<Door>>);

impl Doors {
    /// Of an address. `door` gives that of a network which may have so many times as much.
    pub fn of(address: IpAddr, door: impl Fn(Network, NonZeroU32) -> Arc<Door>) -> Self {
        Self(match address.to_canonical() {
            v4 @ IpAddr::V4(_) => vec![door((v4, 32), NonZeroU32::MIN)],
            IpAddr::V6(address) => {
                let within = |bits: u8| {
                    let mask = !(u128::MAX >> bits);
                    let first = Ipv6Addr::from_bits(address.to_bits() & mask);
                    (first.into(), bits)
                };
                let networks = NETWORKS.into_iter();
                let doors = networks.map(|(bits, times)| door(within(bits), times));
                doors.collect()
            }
        })
    }

    /// See [`Callers::arrive`](super::Callers::arrive).
    pub fn arrive(&self, is_crowded: bool) -> Option<(Vec<Place>, bool)> {
        let (mut places, mut is_fast) = (Vec::new(), false);
        for door in &self.0 {
            let (place, comes_fast) = door.arrive()?;
            places.push(place);
            is_fast |= comes_fast;
        }
        if is_crowded && !self.0.iter().all(|door| door.has_few()) {
            Metrics::limited(Limit::OpenConnections);
            return None;
        }
        Some((places, is_fast))
    }

    /// A request that brought no token that is believed.
    pub fn unauthenticated(&self) -> Result<(), Limited> {
        self.0.iter().try_for_each(|door| door.unauthenticated())
    }

    /// A request for what is open to all.
    pub fn open_request(&self) -> Result<(), Limited> {
        self.0.iter().try_for_each(|door| door.open_request())
    }
}
