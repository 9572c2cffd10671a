//! From an event to its line. Pure. `ACCESS.md` has what each field means, and the test below holds the one against the
//! other.

use std::net::IpAddr;

use concord_shared::access::{AccessList, Role, Subject};
use concord_shared::ids::PrincipalId;
use concord_shared::json;
use serde::Serialize;
use serde_json::ser::CompactFormatter;

use super::event::{By, Event, Via};
use crate::connection::backoff::Who;
use crate::plain::{Safe, hides};

/// Of the schema. A field that is new needs no other; one that goes, or means something else, does.
pub const SCHEMA: u32 = 1;

/// Bytes of what an address of the API is called: longer ones are cut. Everything else that peers say is bounded by what
/// it is: ids and names have 256 bytes at most, lists 256 entries.
pub const OPERATION_BYTES: usize = 128;

/// What stands before each body.
#[derive(Serialize)]
struct Head {
    v: u32,
    n: u64,
    at: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
}

/// What says what happened. The order is that of the page.
#[derive(Default, Serialize)]
struct Body<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<Entry<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
}

/// What became of one entry of a list.
#[derive(Serialize)]
struct Entry<'a> {
    whom: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    before: Option<Role>,
    after: Option<Role>,
}

/// What happened, without when: the same for the same.
pub(super) fn body(by: &By, event: &Event<'_>) -> Vec<u8> {
    let mut body = of(event);
    if let By::Asker(asker) = by {
        body.principal = asker.principal.as_ref().map(PrincipalId::as_str);
        body.address = Some(asker.address);
        body.via = Some(match asker.via {
            Via::Http => "http",
            Via::WebSocket => "websocket",
        });
        body.connection = asker.connection;
        // Who is let in is let in everywhere.
        if !matches!(event, Event::Identified) {
            body.operation = asker.operation.as_deref();
        }
    }
    written(&body)
}

/// That more of somebody was left out.
pub(super) fn left_out(who: &Who) -> Vec<u8> {
    let mut body = of(&Event::LeftOut);
    match who {
        Who::Principal(principal) => body.principal = Some(principal.as_str()),
        Who::Address(address) => body.address = Some(*address),
    }
    written(&body)
}

/// Writes a line behind others. `times`, where it stands for several.
pub(super) fn put(lines: &mut Vec<u8>, n: u64, at_ms: u64, times: Option<u64>, body: &[u8]) {
    let head = Head {
        v: SCHEMA,
        n,
        at: json::timestamp(i64::try_from(at_ms).unwrap_or(i64::MAX)),
        times,
    };
    let head = written(&head);
    // Both are objects with something in them: one goes on where the other one ends.
    lines.extend_from_slice(head.strip_suffix(b"}").unwrap_or(&head));
    lines.push(b',');
    lines.extend_from_slice(body.strip_prefix(b"{").unwrap_or(body));
    lines.push(b'\n');
}

fn written(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    let layout = Safe(CompactFormatter, hides);
    // Text and numbers always can be written, and memory takes them.
    let _written = value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes, layout,
    ));
    bytes
}

/// Destructured in full, so that what an event says can't be forgotten.
fn of<'a>(event: &Event<'a>) -> Body<'a> {
    let event = *event;
    let what = |event, decision| Body {
        event,
        decision: Some(decision),
        ..Body::default()
    };
    let granted = |is: bool| if is { "granted" } else { "denied" };
    match event {
        Event::Opened => Body {
            event: "opened",
            version: Some(env!("CARGO_PKG_VERSION")),
            ..Body::default()
        },
        Event::Identified => what("authentication", "accepted"),
        Event::NotIdentified { code } => Body {
            code: Some(code),
            ..what("authentication", "refused")
        },
        Event::Begun => what("session", "begun"),
        Event::NotBegun { code } => Body {
            code: Some(code),
            ..what("session", "refused")
        },
        Event::Ended { code } => Body {
            code: Some(code),
            ..what("session", "ended")
        },
        Event::Document {
            document,
            role,
            needs,
        } => Body {
            document: Some(document.as_str()),
            role: Some(role),
            needs: Some(needs),
            ..what("document", granted(role >= needs))
        },
        Event::Role {
            document,
            before,
            after,
        } => Body {
            document: Some(document.as_str()),
            before: Some(before),
            after: Some(after),
            ..what("role", "changed")
        },
        Event::Access {
            document,
            number,
            before,
            after,
        } => Body {
            document: Some(document.as_str()),
            number: Some(number),
            entries: Some(difference(before, after)),
            ..what("access", "changed")
        },
        Event::Made { document, list } => Body {
            document: Some(document.as_str()),
            entries: Some(difference(nothing(), list)),
            ..what("made", "done")
        },
        Event::Forked { document, from } => Body {
            document: Some(document.as_str()),
            from: Some(from.as_str()),
            ..what("forked", "done")
        },
        Event::Imported { document, changes } => Body {
            document: Some(document.as_str()),
            changes: Some(changes),
            ..what("imported", "done")
        },
        Event::Exported { document } => Body {
            document: Some(document.as_str()),
            ..what("exported", "done")
        },
        Event::Deleted { document } => Body {
            document: Some(document.as_str()),
            ..what("deleted", "done")
        },
        Event::Undeleted { document } => Body {
            document: Some(document.as_str()),
            ..what("undeleted", "done")
        },
        Event::Purged { document } => Body {
            document: Some(document.as_str()),
            ..what("purged", "done")
        },
        Event::Operator { is_one } => what("operator", granted(is_one)),
        Event::LeftOut => Body {
            event: "left-out",
            ..Body::default()
        },
        Event::Lost => Body {
            event: "lost",
            ..Body::default()
        },
    }
}

fn nothing() -> &'static AccessList {
    const NOTHING: &AccessList = &AccessList {
        anyone: Role::None,
        groups: std::collections::BTreeMap::new(),
        principals: std::collections::BTreeMap::new(),
    };
    NOTHING
}

/// Entries that are not as they were, in the order of a list.
fn difference<'a>(before: &'a AccessList, after: &'a AccessList) -> Vec<Entry<'a>> {
    let subjects = |list: &'a AccessList| {
        let principals = list.principals.keys().map(|name| Subject::Principal(name));
        let groups = list.groups.keys().map(|name| Subject::Group(name));
        principals.chain(groups).chain([Subject::Anyone])
    };
    let role = |list: &AccessList, subject| match subject {
        Subject::Anyone => Some(list.anyone),
        Subject::Group(name) => list.groups.get(name).copied(),
        Subject::Principal(name) => list.principals.get(name).copied(),
    };
    let gone = subjects(before).filter(|subject| role(after, *subject).is_none());
    let entries = subjects(after).chain(gone).map(|subject| {
        let (whom, name) = match subject {
            Subject::Anyone => ("anyone", None),
            Subject::Group(name) => ("group", Some(name)),
            Subject::Principal(name) => ("principal", Some(name)),
        };
        Entry {
            whom,
            name,
            before: role(before, subject),
            after: role(after, subject),
        }
    });
    entries
        .filter(|entry| entry.before != entry.after)
        .collect()
}

#[cfg(test)]
mod tests;
