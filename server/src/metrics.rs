//! What the server counts, with handles made once so that the hot path only adds.

use std::time::Duration;

use concord_shared::code::ErrorCode;
use metrics::{
    Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::access::keyring::Kind;
use crate::clock::unix_ms;
use crate::limits::Limit;

/// Handles of the metrics that connections and documents move.
#[derive(Clone)]
pub struct Metrics {
    /// Connections past the handshake.
    pub connections: Gauge,
    /// Documents in memory.
    pub documents_open: Gauge,
    /// Changes admitted.
    pub changes_in: Counter,
    /// WebSocket frames and their bytes, from and to clients.
    pub frames_in: Counter,
    /// Bytes of frames received.
    pub bytes_in: Counter,
    /// Frames written.
    pub frames_out: Counter,
    /// Bytes of frames written.
    pub bytes_out: Counter,
    /// Times a connection did not keep up and was made to catch up.
    pub outbox_overflows: Counter,
    /// Snapshots made.
    pub compactions: Counter,
    /// Bytes the store takes on disk.
    pub store_bytes: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Describes the metrics to the installed recorder and makes the handles.
    pub fn register() -> Self {
        describe_gauge!("concord_connections", "Connections past the handshake");
        describe_gauge!("concord_documents_open", "Documents in memory");
        describe_counter!("concord_changes_in_total", "Changes admitted");
        describe_counter!(
            "concord_refused_total",
            "Refused messages and changes, by code"
        );
        describe_counter!("concord_frames_in_total", "WebSocket messages received");
        describe_counter!(
            "concord_bytes_in_total",
            "Bytes of WebSocket messages received"
        );
        describe_counter!("concord_frames_out_total", "WebSocket messages written");
        describe_counter!(
            "concord_bytes_out_total",
            "Bytes of WebSocket messages written"
        );
        describe_counter!(
            "concord_outbox_overflows_total",
            "Times a connection fell behind and was caught up later"
        );
        describe_counter!("concord_compactions_total", "Snapshots made");
        describe_gauge!("concord_store_bytes", "Bytes the store takes on disk");
        for code in ErrorCode::ALL {
            counter!("concord_refused_total", "code" => code.as_str()).increment(0);
        }
        describe_counter!(
            "concord_audit_lines_total",
            "What was to be in the audit log, by what became of it"
        );
        describe_counter!(
            "concord_limited_total",
            "Times that somebody was over a limit, and waited or was refused, by limit"
        );
        for limit in Limit::ALL {
            counter!("concord_limited_total", "limit" => limit.as_str()).increment(0);
        }
        describe_counter!(
            "concord_auth_key_reads_total",
            "Readings of keys, by kind of source and result"
        );
        for source in [Kind::File, Kind::Url] {
            for is_read in [true, false] {
                key_reads(source, is_read).increment(0);
            }
        }
        describe_counter!(
            "concord_authorize_asked_total",
            "Questions to the application that decides who may do what, by result"
        );
        for is_answered in [true, false] {
            decided(is_answered).increment(0);
        }
        for counter in Self::audit_lines() {
            counter.increment(0);
        }
        describe_counter!(
            "concord_purges_total",
            "Deleted documents that were purged because their time had come, by result"
        );
        describe_counter!(
            "concord_rewrites_total",
            "Times the database was written anew to erase what was purged, by result"
        );
        describe_histogram!(
            "concord_rewrite_seconds",
            Unit::Seconds,
            "How long that took"
        );
        describe_histogram!(
            "concord_rewrite_pause_seconds",
            Unit::Seconds,
            "For how long nothing could be read or written meanwhile"
        );
        describe_gauge!(
            "concord_rewrite_last_timestamp_seconds",
            "When the database was last written anew, in seconds since 1970; 0: not since the start"
        );
        for is_done in [true, false] {
            counter!("concord_purges_total", "result" => result_of(is_done)).increment(0);
            counter!("concord_rewrites_total", "result" => result_of(is_done)).increment(0);
        }
        gauge!("concord_rewrite_last_timestamp_seconds").set(0.0);
        Self {
            connections: gauge!("concord_connections"),
            documents_open: gauge!("concord_documents_open"),
            changes_in: counter!("concord_changes_in_total"),
            frames_in: counter!("concord_frames_in_total"),
            bytes_in: counter!("concord_bytes_in_total"),
            frames_out: counter!("concord_frames_out_total"),
            bytes_out: counter!("concord_bytes_out_total"),
            outbox_overflows: counter!("concord_outbox_overflows_total"),
            compactions: counter!("concord_compactions_total"),
            store_bytes: gauge!("concord_store_bytes"),
        }
    }

    /// Counts a refusal.
    pub fn refused(code: ErrorCode) {
        counter!("concord_refused_total", "code" => code.as_str()).increment(1);
    }

    /// Counts a question to an application, and whether it was answered.
    pub fn decided(is_answered: bool) {
        decided(is_answered).increment(1);
    }

    /// What was to be in the audit log: written, told by a count since it was the same, left out since it was too much,
    /// and lost.
    pub fn audit_lines() -> [Counter; 4] {
        ["written", "folded", "left-out", "lost"]
            .map(|result| counter!("concord_audit_lines_total", "result" => result))
    }

    /// Counts somebody who is over a limit.
    pub fn limited(limit: Limit) {
        counter!("concord_limited_total", "limit" => limit.as_str()).increment(1);
    }

    /// Counts a purge.
    pub fn purged(is_done: bool) {
        counter!("concord_purges_total", "result" => result_of(is_done)).increment(1);
    }

    /// Counts a rewrite: how long it took, and for how long nobody could read or write, unless it failed.
    #[expect(clippy::cast_precision_loss, reason = "a time of this age has 41 bits")]
    pub fn rewritten(done: Option<(Duration, Duration)>) {
        counter!("concord_rewrites_total", "result" => result_of(done.is_some())).increment(1);
        if let Some((took, pause)) = done {
            histogram!("concord_rewrite_seconds").record(took);
            histogram!("concord_rewrite_pause_seconds").record(pause);
            gauge!("concord_rewrite_last_timestamp_seconds").set(unix_ms() as f64 / 1000.0);
        }
    }

    /// Counts a reading of keys.
    pub fn keys_read(source: Kind, is_read: bool) {
        key_reads(source, is_read).increment(1);
    }
}

fn decided(is_answered: bool) -> Counter {
    counter!("concord_authorize_asked_total", "result" => result_of(is_answered))
}

fn result_of(is_good: bool) -> &'static str {
    if is_good { "ok" } else { "failed" }
}

fn key_reads(source: Kind, is_read: bool) -> Counter {
    let source = match source {
        Kind::File => "file",
        Kind::Url => "url",
    };
    counter!("concord_auth_key_reads_total", "source" => source, "result" => result_of(is_read))
}
