//! Who asks, where proxies ask for them: from the TCP connection and what proxies add to a request to a [`Client`] in its
//! extensions.
//!
//! Only proxies that are named (`--trusted-proxy`) are believed, or anybody could be anybody. `X-Forwarded-For` is what
//! proxies set without being told to. `Forwarded` (RFC 7239), which means the same, is not looked at: whoever is behind a
//! proxy that sets one of two headers writes the other one themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;

use crate::listener::Origin;

/// Who asked, and which proxies passed it on, each appended by the next.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// How a proxy was asked.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Proxies behind one another that are looked at, per request. What a header may have beyond that is not work for us.
pub const MOST_PROXIES: usize = 32;

/// Something that names no addresses.
#[derive(Debug, thiserror::Error)]
#[error("trusted-proxy: {text:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct ProxiesError {
    /// As it was given.
    text: String,
}

/// Whose word counts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxies(Arc<[IpNet]>);

/// Who asks, in each request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The address from which the first proxy that is trusted was asked; without one, the connection's.
    pub address: IpAddr,
    /// Whether it is known that whoever asks does so over TLS: with this server, or with a proxy that says so.
    pub is_https: bool,
}

/// Finds out who asks.
pub async fn see(State(proxies): State<Proxies>, mut request: Request, next: Next) -> Response {
    if let Some(origin) = request.extensions().get::<Origin>() {
        let client = proxies.client(*origin, request.headers());
        request.extensions_mut().insert(client);
    }
    next.run(request).await
}

impl Proxies {
    /// Of addresses and networks.
    pub fn new(texts: &[String]) -> Result<Self, ProxiesError> {
        let network = |text: &String| {
            let network = text.parse::<IpNet>().ok();
            let network = network.or_else(|| Some(text.parse::<IpAddr>().ok()?.into()));
            network.ok_or_else(|| ProxiesError { text: text.clone() })
        };
        Ok(Self(texts.iter().map(network).collect::<Result<_, _>>()?))
    }

    /// Whether this is one of them.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    fn client(&self, origin: Origin, headers: &HeaderMap) -> Client {
        let address = origin.address.to_canonical();
        if !self.trusts(address) {
            return Client {
                address,
                is_https: origin.is_encrypted,
            };
        }
        // Of several, what was added last is the nearest proxy's.
        let proto = headers.get_all(FORWARDED_PROTO).iter().next_back();
        let proto = proto.and_then(|value| value.to_str().ok()?.rsplit(',').next());
        let is_https = match proto {
            Some(proto) => proto.trim().eq_ignore_ascii_case("https"),
            None => origin.is_encrypted,
        };
        Client {
            address: self.first_not_trusted(address, headers),
            is_https,
        }
    }

    /// From the last entry, which the proxy that asks has seen itself, back past proxies that are trusted. What no such
    /// proxy would write ends that: who wrote it is the last one of whom anything is known.
    fn first_not_trusted(&self, origin: IpAddr, headers: &HeaderMap) -> IpAddr {
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut seen = origin;
        for entry in entries.take(MOST_PROXIES) {
            let Some(address) = address(entry) else {
                break;
            };
            seen = address;
            if !self.trusts(seen) {
                break;
            }
        }
        seen
    }
}

/// An address, which may have a port or brackets.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let in_brackets = || {
        let inside = text.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse().ok().map(|address: Ipv6Addr| address.into())
    };
    let address: Option<IpAddr> = text.parse().ok();
    let address = address.or_else(with_port).or_else(in_brackets)?;
    let address = address.to_canonical();
    // Nobody asks from there.
    let is_nobody = address == Ipv4Addr::UNSPECIFIED || address == Ipv6Addr::UNSPECIFIED;
    (!is_nobody).then_some(address)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(trusted: &[&str], origin: &str, headers: &[(&'static str, &str)]) -> Client {
        let trusted: Vec<_> = trusted.iter().map(ToString::to_string).collect();
        let proxies = Proxies::new(&trusted).expect("networks");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                *name,
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        let origin = Origin {
            address: origin.parse().expect("an address"),
            is_encrypted: false,
        };
        proxies.client(origin, &map)
    }

    #[test]
    fn who_asks_is_the_first_whom_no_trusted_proxy_stands_for() {
        let local = ["127.0.0.0/8", "::1/128"];
        let inner = [
            "127.0.0.0/8",
            "10.0.0.0/8",
            "2001:db8:1::/48",
            "192.0.2.200",
        ];
        let many = "10.0.0.1,".repeat(MOST_PROXIES) + "10.0.0.2";
        for (trusted, origin, forwarded, expected) in [
            (&local[..], "127.0.0.1", &[][..], "127.0.0.1"),
            (&local, "127.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            (&local, "::1", &["192.0.2.7:4711"], "192.0.2.7"),
            (&local, "::1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            (&local, "::1", &["[2001:db8::1]"], "2001:db8::1"),
            (&local, "::ffff:127.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            (&local, "127.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
            // What came from outside stands before what the proxy adds.
            (&local, "127.0.0.1", &["10.0.0.1, 192.0.2.7"], "192.0.2.7"),
            (&local, "127.0.0.1", &["10.0.0.1", "192.0.2.7"], "192.0.2.7"),
            // Nobody else is believed.
            (&local, "192.0.2.1", &["192.0.2.7"], "192.0.2.1"),
            (&local, "10.0.0.1", &["192.0.2.7"], "10.0.0.1"),
            (&[], "127.0.0.1", &["192.0.2.7"], "127.0.0.1"),
            // Proxies behind one another.
            (&inner, "127.0.0.1", &["192.0.2.7, 10.0.0.1"], "192.0.2.7"),
            (&inner, "10.0.0.2", &["192.0.2.7, 10.0.0.1"], "192.0.2.7"),
            (&inner, "10.0.0.2", &["192.0.2.7", "10.0.0.1"], "192.0.2.7"),
            (
                &inner,
                "2001:db8:1::9",
                &["198.51.100.9, 192.0.2.7, 192.0.2.200"],
                "192.0.2.7",
            ),
            // All of them trusted: the farthest.
            (&inner, "127.0.0.1", &["10.0.0.3, 10.0.0.1"], "10.0.0.3"),
            // What is no address says nothing, and nothing behind it does.
            (&local, "127.0.0.1", &["unknown"], "127.0.0.1"),
            (&local, "127.0.0.1", &[""], "127.0.0.1"),
            (&local, "127.0.0.1", &["192.0.2.7,"], "127.0.0.1"),
            (&local, "127.0.0.1", &["0.0.0.0"], "127.0.0.1"),
            (&local, "127.0.0.1", &["\u{e9}"], "127.0.0.1"),
            (
                &inner,
                "127.0.0.1",
                &["192.0.2.7, _x, 10.0.0.1"],
                "10.0.0.1",
            ),
            (&inner, "127.0.0.1", &["192.0.2.7, , 10.0.0.1"], "10.0.0.1"),
            (
                &inner,
                "127.0.0.1",
                &["192.0.2.7", "", "10.0.0.1"],
                "10.0.0.1",
            ),
            // Of a long header some entries are looked at.
            (&inner, "127.0.0.1", &["192.0.2.7", &many], "10.0.0.1"),
        ] {
            let headers: Vec<_> = forwarded
                .iter()
                .map(|value| (FORWARDED_FOR, *value))
                .collect();
            let found = client(trusted, origin, &headers).address;
            assert_eq!(found.to_string(), expected, "{origin} {forwarded:?}");
        }
        // Whoever is behind a proxy that knows nothing of it could write this.
        let other = [("forwarded", "for=192.0.2.7")];
        let found = client(&local, "127.0.0.1", &other).address;
        assert_eq!(found.to_string(), "127.0.0.1");
    }

    #[test]
    fn that_it_is_encrypted_is_believed_of_the_same() {
        for (origin, proto, expected) in [
            ("127.0.0.1", &[][..], false),
            ("127.0.0.1", &["https"], true),
            ("127.0.0.1", &["HTTPS"], true),
            ("127.0.0.1", &["http"], false),
            ("127.0.0.1", &["https, http"], false),
            ("127.0.0.1", &["http", "https"], true),
            ("192.0.2.1", &["https"], false),
        ] {
            let headers: Vec<_> = proto
                .iter()
                .map(|value| (FORWARDED_PROTO, *value))
                .collect();
            let found = client(&["127.0.0.1"], origin, &headers).is_https;
            assert_eq!(found, expected, "{origin} {proto:?}");
        }
    }

    #[test]
    fn what_names_no_addresses_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "proxy.example",
            "10.0.0.1:80",
            "10.0.0.0/8 ",
        ] {
            let error = Proxies::new(&[text.to_owned()]).expect_err(text);
            assert!(error.to_string().contains("trusted-proxy"), "{error}");
        }
    }
}
