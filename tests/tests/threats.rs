//! Promise: each thing that THREATS.md says is held off names tests that are there.
//!
//! The table is read from the page. A test is a function of that name with an attribute that makes it one, somewhere in the
//! repository's own sources; so one that is renamed or removed is missed here. What is in the table of what is
//! not held off names none, or it would be in the wrong table.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

const MARK: &str = "<!-- The lines of threats.rs. -->";

/// Where sources are, from the root.
const SOURCES: [&str; 5] = [
    "server",
    "shared",
    "client-wasm/src",
    "tests/tests",
    "tests/src",
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Names of the functions of a file that are run as tests.
fn tests_of(source: &str) -> impl Iterator<Item = &str> {
    let is_test = |attribute: &str| {
        let name = attribute.trim_start_matches("#[");
        let end = name.find(['(', ']']).unwrap_or(name.len());
        matches!(&name[..end], "test" | "tokio::test")
    };
    let mut in_front_of_one = false;
    source.lines().map(str::trim).filter_map(move |line| {
        if line.starts_with("#[") {
            in_front_of_one |= is_test(line);
            return None;
        }
        // Further attributes, comments, and what is between.
        if line.is_empty() || line.starts_with("//") {
            return None;
        }
        let is_one = std::mem::take(&mut in_front_of_one);
        let (_, after) = line.split_once("fn ")?;
        after.split('(').next().filter(|_| is_one)
    })
}

fn collect(directory: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default();
            if name != "node_modules" && name != "target" {
                collect(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path)?;
            found.extend(tests_of(&source).map(str::to_owned));
        }
    }
    Ok(())
}

/// The rows of the first table of a text, without its head.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
}

#[test]
fn every_threat_that_is_held_off_names_tests_that_are_there() -> Result<()> {
    let mut found = BTreeSet::new();
    for sources in SOURCES {
        collect(&root().join(sources), &mut found)?;
    }
    // Of each kind and place one, so that a reader of sources that finds nothing is found out.
    for known in [
        "every_threat_that_is_held_off_names_tests_that_are_there",
        "a_document_is_whose_who_takes_it_first",
        "without_a_token_nothing_is_answered",
    ] {
        ensure!(found.contains(known), "{known}");
    }
    ensure!(!found.contains("rows") && !found.contains("collect"));

    let page = fs::read_to_string(root().join("THREATS.md"))?;
    let (_, held_off) = page.split_once(MARK).context("the table")?;
    let (held_off, not_held_off) = held_off.split_once("\n## ").context("a second table")?;
    let mut lines = 0;
    for row in rows(held_off) {
        ensure!(row.len() == 4, "{row:?}");
        let names: Vec<_> = row[3].split('`').skip(1).step_by(2).collect();
        ensure!(
            !names.is_empty(),
            "no test shows that {} {}",
            row[0],
            row[1]
        );
        for name in names {
            ensure!(
                found.contains(name),
                "{} {}: there is no test {name}",
                row[0],
                row[1]
            );
        }
        lines += 1;
    }
    ensure!(lines >= 30, "{lines}");
    for row in rows(not_held_off) {
        ensure!(!row.concat().contains('_'), "{row:?} names a test");
    }
    Ok(())
}
