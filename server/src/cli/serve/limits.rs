//! Flags of `concord serve` that limit what one caller may have: see [`crate::limits`].

use serde::Serialize;

/// See the module's docs.
#[derive(Debug, Default, clap::Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct LimitArgs {
    /// TCP connections that one address may have at a time beside WebSocket connections [default: 512; here and below 0 is no
    /// limit]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections_per_address: Option<usize>,
    /// New TCP connections of one address in a second; a minute's may come at once, here and below [default: 50]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_per_second: Option<u64>,
    /// Requests of one address in a second without a token that is believed [default: 10]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    unauthenticated_per_second: Option<u64>,
    /// Requests of one address in a second for what nobody needs a token for [default: 200]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    open_requests_per_second: Option<u64>,
    /// WebSocket connections and event streams that one principal, or one address where nobody says who they are, may have
    /// [default: 2000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections_per_caller: Option<usize>,
    /// Documents that one caller may have open, on all their WebSocket connections [default: 32768]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_open_documents_per_caller: Option<usize>,
    /// HTTP requests of one caller in a second [default: 1000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_second: Option<u64>,
    /// WebSocket messages of one caller in a second; more wait [default: 5000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_per_second: Option<u64>,
    /// WebSocket messages of one caller in a second, in MiB; more wait [default: 8]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    received_mib_per_second: Option<u64>,
    /// Changes of one caller in a second; more wait [default: 10000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    changes_per_second: Option<u64>,
    /// Documents that one caller may make in a minute; an hour's may come at once [default: 600]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    new_documents_per_minute: Option<u64>,
    /// Documents that one principal may have made, without deleted ones [default: 100000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_documents_per_principal: Option<u64>,
    /// What these may take in the store, in MiB [default: 10240]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_mib_per_principal: Option<u64>,
    /// What one document may take in the store, in MiB [default: 1024]
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_document_mib: Option<u64>,
    /// Connections that may have one document open, of which one caller has at most a tenth [default: 2000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_peers_per_document: Option<usize>,
}
