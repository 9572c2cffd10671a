//! What the server counts, with handles made once so that the hot path only adds.

use concord_shared::code::ErrorCode;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

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
}
