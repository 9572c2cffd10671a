use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_shared::ids::DocumentId;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::super::event::Asker;
use super::*;

/// Fields that are about who asks, and when.
const OF_ALL: [&str; 11] = [
    "v",
    "n",
    "at",
    "times",
    "event",
    "decision",
    "principal",
    "address",
    "via",
    "connection",
    "operation",
];

fn list(json: &Value) -> AccessList {
    AccessList::deserialize(json).unwrap()
}

fn asker() -> Asker {
    Asker {
        principal: Some(PrincipalId::new("ann").unwrap()),
        address: [192, 0, 2, 7].into(),
        via: Via::Http,
        connection: None,
        operation: Some(Arc::from("GET /v1/documents/{id}")),
    }
}

fn line(by: &By, event: &Event<'_>) -> String {
    let mut lines = Vec::new();
    put(&mut lines, 17, 1_763_881_824_518, None, &body(by, event));
    String::from_utf8(lines).unwrap()
}

fn parsed(by: &By, event: &Event<'_>) -> Value {
    serde_json::from_str(&line(by, event)).unwrap()
}

/// The rows of a table of the page that explains the log.
fn table(mark: &str) -> Vec<Vec<String>> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../ACCESS.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.split(mark).nth(1).unwrap().trim_start().lines();
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    })
    .collect()
}

/// What is in backticks.
fn names(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_line_is_as_the_page_says() {
    let (document, from) = (DocumentId::new("d").unwrap(), DocumentId::new("e").unwrap());
    let (document, from) = (&document, &from);
    let before = list(&json!({"principals": {"ann": "owner", "bob": "writer"}}));
    let after = list(&json!({"principals": {"ann": "owner"}, "anyone": "reader"}));
    let (before, after) = (&before, &after);
    let (role, needs) = (Role::Reader, Role::Writer);
    let events = [
        Event::Opened,
        Event::Identified,
        Event::NotIdentified {
            code: "token-expired",
        },
        Event::Begun,
        Event::NotBegun { code: "back-off" },
        Event::Ended { code: "closed" },
        Event::Document {
            document,
            role,
            needs,
        },
        Event::Document {
            document,
            role: Role::Owner,
            needs,
        },
        Event::Role {
            document,
            before: needs,
            after: role,
        },
        Event::Access {
            document,
            number: 3,
            before,
            after,
        },
        Event::Made {
            document,
            list: after,
        },
        Event::Forked { document, from },
        Event::Imported {
            document,
            changes: 4,
        },
        Event::Exported { document },
        Event::Deleted { document },
        Event::Undeleted { document },
        Event::Purged { document },
        Event::Operator { is_one: true },
        Event::Operator { is_one: false },
        Event::LeftOut,
        Event::Lost,
    ];
    let mut documented = BTreeMap::new();
    for row in table("<!-- The events of audit/line.rs. -->") {
        let decisions = names(&row[1]);
        let none = decisions.is_empty().then(String::new);
        let fields: BTreeSet<_> = names(&row[2]).into_iter().collect();
        for decision in decisions.into_iter().chain(none) {
            documented.insert((names(&row[0])[0].clone(), decision), fields.clone());
        }
    }
    let fields = table("<!-- The fields of audit/line.rs. -->");
    let fields: BTreeSet<_> = fields.iter().flat_map(|row| names(&row[0])).collect();
    let mut seen = BTreeSet::new();
    let by = By::Asker(Asker {
        connection: Some(5),
        ..asker()
    });
    for event in &events {
        let line = parsed(&by, event);
        let line = line.as_object().unwrap();
        let text = |field: &str| line.get(field).map_or("", |value| value.as_str().unwrap());
        let what = (text("event").to_owned(), text("decision").to_owned());
        for field in line.keys() {
            assert!(fields.contains(field), "{field} is not documented");
        }
        let own = line
            .keys()
            .filter(|field| !OF_ALL.contains(&field.as_str()));
        let own: BTreeSet<_> = own.cloned().collect();
        assert_eq!(documented.get(&what), Some(&own), "{what:?}");
        seen.insert(what);
    }
    assert_eq!(seen, documented.into_keys().collect());
}

#[test]
fn a_line_is_what_it_always_was() {
    let document = DocumentId::new("4NMNnkMhL8jXrdJ9jamS58PAVdXu").unwrap();
    let event = Event::Document {
        document: &document,
        role: Role::None,
        needs: Role::Reader,
    };
    let golden = r#"{"v":1,"n":17,"at":"2025-11-23T07:10:24.518Z","event":"document","decision":"denied","principal":"ann","address":"192.0.2.7","via":"http","operation":"GET /v1/documents/{id}","document":"4NMNnkMhL8jXrdJ9jamS58PAVdXu","role":"none","needs":"reader"}"#;
    assert_eq!(line(&By::Asker(asker()), &event), format!("{golden}\n"));
    let mut lines = Vec::new();
    let who = Who::Address([192, 0, 2, 7].into());
    put(&mut lines, 18, 0, Some(12), &left_out(&who));
    let golden = r#"{"v":1,"n":18,"at":"1970-01-01T00:00:00.000Z","times":12,"event":"left-out","address":"192.0.2.7"}"#;
    assert_eq!(String::from_utf8(lines).unwrap(), format!("{golden}\n"));
}

#[test]
fn nobody_writes_a_line_of_their_own() {
    // Names can't have control characters, but may have all else.
    let name = "x\",\"event\":\"deleted\u{2028}\\\u{202e}{\"v\":1}";
    let by = By::Asker(Asker {
        principal: Some(PrincipalId::new(name).unwrap()),
        operation: Some(Arc::from("GET \n{\"v\":1}\u{1b}[31m")),
        ..asker()
    });
    let event = Event::Begun;
    let text = line(&by, &event);
    assert_eq!(text.matches('\n').count(), 1);
    assert!(text.is_ascii(), "{text}");
    let line = parsed(&by, &event);
    assert_eq!(
        (&line["principal"], &line["event"]),
        (&json!(name), &json!("session"))
    );
}

#[test]
fn names_that_look_the_same_are_told_apart() {
    for (name, written) in [
        ("an\u{200b}n", r"an\u200bn"),
        ("ann\u{2060}", r"ann\u2060"),
        ("a\u{a0}n", r"a\u00a0n"),
        ("re\u{301}my", r"re\u0301my"),
        ("\u{fe00}ann\u{e0061}", r"\ufe00ann\udb40\udc61"),
        ("Ren\u{e9}e \u{5f20}", "Ren\u{e9}e \u{5f20}"),
    ] {
        let asker = Asker {
            principal: PrincipalId::new(name).ok(),
            ..asker()
        };
        let line = line(&By::Asker(asker), &Event::Begun);
        assert!(line.contains(&format!("\"{written}\"")), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["principal"], name);
    }
}

#[test]
fn a_line_has_an_end() {
    let long = "\u{10ffff}".repeat(64);
    let names = |role: &str| -> serde_json::Map<String, Value> {
        let names = (0..256).map(|n| (format!("{}{n:03}", &long[..252]), json!(role)));
        names.collect()
    };
    let before = list(&json!({ "principals": names("reader") }));
    let after = list(&json!({ "groups": names("writer") }));
    let document = DocumentId::new("d").unwrap();
    let event = Event::Access {
        document: &document,
        number: 1,
        before: &before,
        after: &after,
    };
    let line = line(&By::Asker(asker()), &event);
    // Of each byte three, at most, where all is escaped.
    assert!(line.len() < 512 << 10, "{}", line.len());
    assert_eq!(line.matches("\"whom\"").count(), 512);
}

#[test]
fn of_a_list_what_is_not_as_it_was_is_told() {
    let before = list(&json!({
        "anyone": "reader", "groups": {"board": "writer"}, "principals": {"ann": "owner", "bob": "writer", "cyd": "none"},
    }));
    let after = list(&json!({
        "groups": {"board": "writer", "staff": "reader"}, "principals": {"ann": "owner", "bob": "reader"},
    }));
    let entries = serde_json::to_value(difference(&before, &after)).unwrap();
    let expected = json!([
        {"whom": "principal", "name": "bob", "before": "writer", "after": "reader"},
        {"whom": "group", "name": "staff", "before": null, "after": "reader"},
        {"whom": "anyone", "before": "reader", "after": "none"},
        {"whom": "principal", "name": "cyd", "before": "none", "after": null},
    ]);
    assert_eq!(entries, expected);
}
