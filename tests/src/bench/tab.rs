//! One light client: it types what it was given and answers as stock clients do, but applies nothing.
//!
//! What it received it learns from the heads of each sync message, looked up among the hashes of the script;
//! that the changes really came, from counting their chunks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use automerge::ChangeHash;
use bytes::{BufMut as _, Bytes};
use concord_client_wasm::Joining;
use concord_shared::limits::Limits;
use concord_shared::sync::split;
use concord_shared::wire::{Message, SyncFrame, decode};
use concord_shared::{DocumentId, PeerId};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use rand::RngExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::history::{Base, Script};
use super::relay::{ANSWER, BROADCAST};

/// Bytes with which a reader of the bare relay answers a frame: what an Automerge client answers.
pub const ANSWER_BYTES: usize = 344;

/// How long a tab waits for a frame that must come.
const PATIENCE: Duration = Duration::from_mins(1);

/// Read buffer of a tab, small so that thousands of them fit beside what is measured.
const READ_BUFFER_BYTES: usize = 16 << 10;

/// Leading bytes of every Automerge chunk, and of the checksum after them.
const CHUNK_MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHECKSUM_BYTES: usize = 4;
/// The chunk type of a change.
const CHANGE_CHUNK: u8 = 1;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a tab does.
#[derive(Debug, Clone)]
pub struct Part {
    /// What is typed into the tab's document, by all of its writers.
    pub script: Arc<Script>,
    /// Which of the writers it is, if it is one.
    pub writer: Option<usize>,
    /// Changes of its own that may be unacknowledged.
    pub window: usize,
    /// Whether it answers what it is sent.
    pub answers: bool,
}

/// An open tab.
#[derive(Debug)]
pub struct Tab {
    socket: Socket,
    speech: Speech,
    part: Part,
    base: Vec<ChangeHash>,
    /// By writer: how many of its changes have come back from the server.
    seen: Vec<usize>,
    sent: usize,
    tally: Tally,
}

/// How the server is spoken to.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one for each of some hundred tabs"
)]
enum Speech {
    Concord {
        header: SyncFrame,
        limits: Limits,
        server_heads: Vec<ChangeHash>,
    },
    Relay {
        header: SyncFrame,
    },
}

/// What went through a tab.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Frames received.
    pub frames: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Changes in them.
    pub changes: u64,
    /// Answers sent.
    pub answers: u64,
    /// Bytes of them.
    pub answer_bytes: u64,
}

impl Tab {
    /// Opens the document `document` of a Concord, which it first uploads (`create`) or has to be there,
    /// and gets it up to `base`.
    pub async fn open(
        url: &str,
        document: &DocumentId,
        base: &Base,
        create: bool,
        part: Part,
    ) -> Result<Self> {
        let (mut socket, header) = join(url, document).await?;
        let limits = Limits::default();
        let data = if create {
            sync_message(&base.heads, &[], Some(&base.saved))
        } else {
            sync_message(&[], &[], None)
        };
        socket.send(Frame::Binary(header.with(&data))).await?;
        let mut tab = Self {
            socket,
            speech: Speech::Concord {
                header,
                limits,
                server_heads: Vec::new(),
            },
            seen: vec![0; part.script.changes.len()],
            part,
            base: base.heads.clone(),
            sent: 0,
            tally: Tally::default(),
        };
        loop {
            let frame = tab.next_frame().await?;
            tab.take(&frame)?;
            if matches!(&tab.speech, Speech::Concord { server_heads, .. } if *server_heads == tab.base)
            {
                break;
            }
        }
        tab.answer().await?;
        tab.socket.flush().await?;
        tab.tally = Tally::default();
        Ok(tab)
    }

    /// Enters a room of the bare relay.
    pub async fn enter(url: &str, base: &Base, part: Part) -> Result<Self> {
        let socket = connect(url).await?;
        Ok(Self {
            socket,
            // Frames of the relay are as long as Concord's.
            speech: Speech::Relay {
                header: SyncFrame::new(&new_document(), &new_peer()?, &new_peer()?),
            },
            seen: vec![0; part.script.changes.len()],
            part,
            base: base.heads.clone(),
            sent: 0,
            tally: Tally::default(),
        })
    }

    /// Types the whole script and waits until everything from everybody has come; returns when that was.
    pub async fn run(&mut self) -> Result<Instant> {
        loop {
            self.send_what_the_window_allows().await?;
            self.socket.flush().await?;
            if self.is_complete() {
                return Ok(Instant::now());
            }
            let frame = self.next_frame().await?;
            self.receive(frame).await?;
            // As many frames a flush as there are, as any client does that is behind.
            while let Some(Some(frame)) = self.socket.next().now_or_never() {
                if let Frame::Binary(frame) = frame? {
                    self.receive(frame).await?;
                }
            }
        }
    }

    /// Types the next change alone and waits until it is acknowledged.
    pub async fn type_one(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let before = self.acknowledged();
        self.send_next().await?;
        self.socket.flush().await?;
        while self.acknowledged() == before {
            let frame = self.next_frame().await?;
            self.receive(frame).await?;
        }
        Ok(started.elapsed())
    }

    /// What went through so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn is_complete(&self) -> bool {
        self.seen
            .iter()
            .zip(&self.part.script.changes)
            .all(|(seen, changes)| *seen == changes.len())
    }

    fn acknowledged(&self) -> usize {
        self.part
            .writer
            .and_then(|writer| self.seen.get(writer))
            .copied()
            .unwrap_or(0)
    }

    async fn send_what_the_window_allows(&mut self) -> Result<()> {
        let Some(total) = self
            .part
            .writer
            .and_then(|writer| self.part.script.changes.get(writer))
            .map(Vec::len)
        else {
            return Ok(());
        };
        while self.sent < total && self.sent - self.acknowledged() < self.part.window {
            self.send_next().await?;
        }
        Ok(())
    }

    async fn send_next(&mut self) -> Result<()> {
        let script = Arc::clone(&self.part.script);
        let writer = self.part.writer.context("a reader does not type")?;
        let change = script
            .changes
            .get(writer)
            .and_then(|changes| changes.get(self.sent))
            .context("the script ended")?;
        let place = self.sent;
        self.sent += 1;
        let heads = self.heads();
        let frame = match &self.speech {
            Speech::Concord {
                header,
                server_heads,
                ..
            } => header.with(&sync_message(&heads, server_heads, Some(&change.bytes))),
            Speech::Relay { header } => {
                let payload = header.with(&sync_message(&heads, &heads, Some(&change.bytes)));
                let mut frame = Vec::with_capacity(payload.len() + 9);
                frame.put_u8(BROADCAST);
                frame.put_u32(u32::try_from(writer)?);
                frame.put_u32(u32::try_from(place)?);
                frame.put_slice(&payload);
                frame.into()
            }
        };
        self.socket.feed(Frame::Binary(frame)).await?;
        Ok(())
    }

    /// The heads of the document this tab would have: the last change of every writer that typed.
    fn heads(&self) -> Vec<ChangeHash> {
        let script = &self.part.script;
        let mut heads: Vec<ChangeHash> = script
            .changes
            .iter()
            .enumerate()
            .filter_map(|(writer, changes)| {
                let seen = self.seen.get(writer).copied()?;
                let made = if self.part.writer == Some(writer) {
                    self.sent
                } else {
                    seen
                };
                changes.get(made.checked_sub(1)?).map(|change| change.hash)
            })
            .collect();
        if heads.is_empty() {
            heads.clone_from(&self.base);
        }
        heads.sort_unstable();
        heads
    }

    async fn receive(&mut self, frame: Bytes) -> Result<()> {
        // A client answers what brought it something; an acknowledgement it takes in silence.
        if self.take(&frame)? && self.part.answers {
            self.answer().await?;
        }
        Ok(())
    }

    /// Notes what a frame brings; returns whether it brought changes of others.
    fn take(&mut self, frame: &Bytes) -> Result<bool> {
        self.tally.frames += 1;
        self.tally.bytes += frame.len() as u64;
        match &mut self.speech {
            Speech::Concord {
                limits,
                server_heads,
                ..
            } => {
                let data = match decode(frame, limits)? {
                    Message::Sync { data, .. } => data,
                    Message::Error { message, .. } => bail!("the server reported: {message}"),
                    Message::DocUnavailable { document, .. } => bail!("{document} is unavailable"),
                    _ => return Ok(false),
                };
                let sync = split(&data, limits)?;
                for head in &sync.message.heads {
                    if let Some((writer, number)) = self.part.script.places.get(head)
                        && let Some(seen) = self.seen.get_mut(*writer)
                    {
                        *seen = (number + 1).max(*seen);
                    }
                }
                *server_heads = sync.message.heads;
                for blob in &sync.changes {
                    self.tally.changes += count_changes(blob)?;
                }
                Ok(!sync.changes.is_empty())
            }
            Speech::Relay { .. } => {
                let place = frame
                    .get(1..9)
                    .and_then(|place| <[u8; 8]>::try_from(place).ok());
                let place = u64::from_be_bytes(place.context("a frame of the relay is short")?);
                let (writer, number) = (
                    usize::try_from(place >> 32)?,
                    usize::try_from(place & 0xffff_ffff)?,
                );
                let seen = self
                    .seen
                    .get_mut(writer)
                    .context("a writer that the script does not have")?;
                ensure!(*seen == number, "the relay lost a frame");
                *seen = number + 1;
                let others = self.part.writer != Some(writer);
                self.tally.changes += u64::from(others);
                Ok(others)
            }
        }
    }

    async fn answer(&mut self) -> Result<()> {
        let frame = match &self.speech {
            Speech::Concord {
                header,
                server_heads,
                ..
            } => header.with(&sync_message(&self.heads(), server_heads, None)),
            Speech::Relay { .. } => Bytes::from_static(&[ANSWER; ANSWER_BYTES]),
        };
        self.tally.answers += 1;
        self.tally.answer_bytes += frame.len() as u64;
        self.socket.feed(Frame::Binary(frame)).await?;
        Ok(())
    }

    async fn next_frame(&mut self) -> Result<Bytes> {
        next_frame(&mut self.socket).await
    }
}

/// Opens a socket.
pub async fn connect(url: &str) -> Result<Socket> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(None)
        .max_frame_size(None);
    let (socket, _) = connect_async_with_config(url, Some(config), true)
        .await
        .with_context(|| format!("connecting to {url}"))?;
    Ok(socket)
}

/// Opens a socket to a Concord, joins, and prepares the header of frames about `document`.
pub async fn join(url: &str, document: &DocumentId) -> Result<(Socket, SyncFrame)> {
    let mut socket = connect(url).await?;
    let us = new_peer()?;
    let (joining, join) = Joining::start(us.clone(), None);
    socket.send(Frame::Binary(join)).await?;
    let open = joining.receive(&next_frame(&mut socket).await?, &Limits::default())?;
    Ok((socket, SyncFrame::new(document, &us, open.server())))
}

/// The next binary frame.
pub async fn next_frame(socket: &mut Socket) -> Result<Bytes> {
    loop {
        let frame = timeout(PATIENCE, socket.next())
            .await
            .context("nothing came any more")?;
        match frame.context("the connection ended")?? {
            Frame::Binary(frame) => return Ok(frame),
            Frame::Close(close) => bail!("the server closed the connection: {close:?}"),
            _ => {}
        }
    }
}

/// A sync message of a client that speaks V2: `changes` are chunks, or a whole document's.
pub fn sync_message(
    heads: &[ChangeHash],
    last_sync: &[ChangeHash],
    changes: Option<&[u8]>,
) -> Vec<u8> {
    let mut data = Vec::with_capacity(
        64 + 32 * (heads.len() + last_sync.len()) + changes.map_or(0, <[u8]>::len),
    );
    data.put_u8(0x43);
    put_hashes(&mut data, heads);
    put_hashes(&mut data, &[]);
    // One `have`: since the last sync, nothing that the server does not know.
    data.put_u8(1);
    put_hashes(&mut data, last_sync);
    data.put_u8(0);
    match changes {
        Some(changes) => {
            data.put_u8(1);
            put_uleb(&mut data, changes.len());
            data.put_slice(changes);
        }
        None => data.put_u8(0),
    }
    data.put_slice(&[2, 2, 0x84]);
    data
}

fn put_hashes(data: &mut Vec<u8>, hashes: &[ChangeHash]) {
    put_uleb(data, hashes.len());
    for hash in hashes {
        data.put_slice(&hash.0);
    }
}

fn put_uleb(data: &mut Vec<u8>, mut number: usize) {
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits")]
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            data.put_u8(low);
            return;
        }
        data.put_u8(low | 0x80);
    }
}

/// How many change chunks lie in `blob`; a document chunk counts as none.
pub fn count_changes(blob: &[u8]) -> Result<u64> {
    let (mut rest, mut changes) = (blob, 0);
    while !rest.is_empty() {
        let body = rest.strip_prefix(&CHUNK_MAGIC).context("no chunk")?;
        let body = body.get(CHUNK_CHECKSUM_BYTES..).context("a short chunk")?;
        let (kind, mut body) = body.split_first().context("a short chunk")?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let (byte, after) = body.split_first().context("a short chunk")?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            body = after;
            if byte & 0x80 == 0 {
                break;
            }
        }
        changes += u64::from(*kind == CHANGE_CHUNK);
        rest = body.get(length..).context("a short chunk")?;
    }
    Ok(changes)
}

/// A document that nobody has.
pub fn new_document() -> DocumentId {
    DocumentId::from_uuid(rand::rng().random())
}

fn new_peer() -> Result<PeerId> {
    Ok(PeerId::new(&format!(
        "peer-{:032x}",
        rand::rng().random::<u128>()
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::sync;

    #[test]
    fn messages_are_what_automerge_reads() {
        let heads = [ChangeHash([1; 32]), ChangeHash([2; 32])];
        let message =
            sync::Message::decode(&sync_message(&heads, &heads[..1], Some(&[9; 300]))).unwrap();
        assert_eq!(message.heads, heads);
        assert_eq!(message.have.len(), 1);
        assert_eq!(message.have[0].last_sync, heads[..1]);
        assert_eq!(message.have[0].bloom, sync::BloomFilter::default());
        assert_eq!(message.changes.iter().next(), Some(&[9; 300][..]));
        assert!(message.flags.is_some());
        assert!(
            sync::Message::decode(&sync_message(&heads, &heads, None))
                .unwrap()
                .changes
                .is_empty()
        );
    }

    #[test]
    fn change_chunks_are_counted() {
        let base = Base::typed(3).unwrap();
        let script = base.script(1, 5).unwrap();
        let blob: Vec<u8> = script.changes[0]
            .iter()
            .flat_map(|change| change.bytes.clone())
            .collect();
        assert_eq!(count_changes(&blob).unwrap(), 5);
        assert_eq!(count_changes(&base.saved).unwrap(), 0);
        assert!(count_changes(&blob[..blob.len() - 1]).is_err());
        assert!(count_changes(b"garbage").is_err());
    }
}
