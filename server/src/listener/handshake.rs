//! From a TCP connection to one that HTTP can be spoken on: encrypted, where the server speaks TLS.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::debug;

use super::wire::Wire;
use crate::limits::Limit;
use crate::metrics::Metrics;
use crate::tls::Tls;

/// What HTTP is spoken on.
pub(super) type Stream = Either<Wire, Box<TlsStream<Wire>>>;

/// The first byte of a TLS connection: the kind of record that a handshake begins with (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// For whoever typed `http://`, or named this port to a proxy that speaks no TLS.
const PLAIN_REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 40\r\nCache-Control: no-store\r\nConnection: close\r\n\r\nplain HTTP was sent to an HTTPS address\n";

/// What is still read of a plain request. To close with bytes unread would take the answer away from its reader.
const REFUSED_BYTES: u64 = 32 << 10;

/// For how long.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes the handshake, if there is to be one, within the time. `None`: there is nothing more to do.
pub(super) async fn handshake(wire: Wire, tls: Option<Tls>, patience: Duration) -> Option<Stream> {
    let Some(tls) = tls else {
        return Some(Either::Left(wire));
    };
    match timeout(patience, encrypt(wire, &tls)).await {
        Ok(Ok(stream)) => return stream.map(|stream| Either::Right(Box::new(stream))),
        Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
        Err(_) => {
            Metrics::limited(Limit::Handshakes);
            debug!("TLS handshake took too long");
        }
    }
    None
}

async fn encrypt(wire: Wire, tls: &Tls) -> io::Result<Option<TlsStream<Wire>>> {
    let mut first = [0];
    if wire.tcp.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    match first {
        [HANDSHAKE_RECORD] => Ok(Some(tls.acceptor().accept(wire).await?)),
        [b'A'..=b'Z'] => {
            refuse(wire).await?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

async fn refuse(mut wire: Wire) -> io::Result<()> {
    wire.write_all(PLAIN_REFUSAL).await?;
    wire.shutdown().await?;
    let mut rest = wire.take(REFUSED_BYTES);
    let mut nowhere = tokio::io::sink();
    let dropped = tokio::io::copy(&mut rest, &mut nowhere);
    match timeout(REFUSED_TIMEOUT, dropped).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_REFUSAL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
}
