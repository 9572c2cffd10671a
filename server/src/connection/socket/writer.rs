//! Drains a connection's outbox into its socket, many frames a flush, and pings.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket};
use bytes::Bytes;
use concord_shared::code::ErrorCode;
use concord_shared::wire::Message;
use futures_util::SinkExt as _;
use futures_util::stream::SplitSink;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::CLOSE_TIMEOUT;
use crate::connection::Goodbye;
use crate::connection::outbox::Outbox;
use crate::connection::patience::{self, Backlog, Ping, Stalled};
use crate::document::ConnectionId;
use crate::metrics::Metrics;
use crate::traffic::Traffic;

/// The writing half of a connection.
pub(super) struct Writer {
    pub(super) id: ConnectionId,
    pub(super) sink: SplitSink<WebSocket, Frame>,
    pub(super) traffic: Traffic,
    pub(super) outbox: Arc<Outbox>,
    pub(super) pings: watch::Sender<Option<Ping>>,
    pub(super) metrics: Metrics,
    pub(super) keep_alive: Duration,
    pub(super) stall: Duration,
}

/// Why nothing more can be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("socket: {0}")]
    Socket(#[from] axum::Error),
    #[error("the peer takes nothing")]
    Stalled,
}

impl From<Stalled> for WriteError {
    fn from(_: Stalled) -> Self {
        Self::Stalled
    }
}

impl WriteError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Socket(_) => ErrorCode::Closed,
            Self::Stalled => ErrorCode::Timeout,
        }
    }
}

impl Writer {
    /// Until the end; whether the peer was told.
    pub(super) async fn run(mut self) -> bool {
        match self.write_until_goodbye().await {
            Ok(goodbye) => {
                let told = timeout(CLOSE_TIMEOUT, self.say_goodbye(&goodbye)).await;
                matches!(told, Ok(Ok(())))
            }
            // The reader is, and the log.
            Err(error) => {
                self.outbox.abandon(Goodbye {
                    detail: error.to_string(),
                    ..Goodbye::new(error.code())
                });
                false
            }
        }
    }

    async fn write_until_goodbye(&mut self) -> Result<Goodbye, WriteError> {
        let mut ping = tokio::time::interval(self.keep_alive);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let mut backlog = Backlog::new(self.stall);
        loop {
            let taken = tokio::select! {
                taken = self.outbox.take() => taken,
                _ = ping.tick() => {
                    let arrived = self.traffic.arrived();
                    self.write([Frame::Ping(Bytes::new())]).await?;
                    let at = Instant::now();
                    let patience = self.keep_alive + backlog.left(self.traffic.written(), at);
                    self.pings.send_replace(Some(Ping {
                        at,
                        patience,
                        arrived,
                    }));
                    continue;
                }
            };
            for frame in &taken.frames {
                self.metrics.frames_out.increment(1);
                self.metrics.bytes_out.increment(frame.bytes() as u64);
            }
            self.write(taken.frames.into_iter().map(Frame::from))
                .await?;
            self.outbox.written();
            for document in taken.congested {
                document.drained(self.id);
            }
            if let Some(goodbye) = taken.goodbye {
                return Ok(goodbye);
            }
        }
    }

    async fn write(&mut self, frames: impl IntoIterator<Item = Frame>) -> Result<(), WriteError> {
        let write = async {
            for frame in frames {
                self.sink.feed(frame).await?;
            }
            self.sink.flush().await
        };
        let taken = || self.traffic.written();
        let closing = self.outbox.closing();
        Ok(patience::while_taken(write, taken, self.stall, closing).await??)
    }

    /// An `error` message, which JavaScript clients only log, then the close frame, which they heed.
    async fn say_goodbye(&mut self, goodbye: &Goodbye) -> Result<(), axum::Error> {
        if goodbye.is_a_refusal() {
            let message = Message::Error {
                message: goodbye.message(),
                sender: None,
                target: None,
            };
            self.sink.feed(Frame::Binary(message.encode())).await?;
        }
        let close = CloseFrame {
            code: goodbye.close_code(),
            reason: goodbye.code.as_str().into(),
        };
        self.sink.send(Frame::Close(Some(close))).await
    }
}
