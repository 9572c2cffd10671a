//! Reading and writing: `create`, `get`, `set`, `unset`, `patch`, `list`.

use anyhow::Result;
use automerge::ReadDoc as _;
use serde_json::json;

use super::{file, in_both, printed};

#[test]
fn a_document_is_made_read_changed_and_listed() -> Result<()> {
    in_both(|world| {
        let value =
            r#"{"companies": {"acme": {"name": "Acme"}}, "dates": ["2026-11-21"], "n": 1.5}"#;
        let id = &*world.word(&["create", value])?;
        assert_eq!(
            world.json(&["get", id])?,
            serde_json::from_str::<serde_json::Value>(value)?
        );
        let url = format!("automerge:{id}");
        assert_eq!(
            world.print(&["get", &url, "/companies/acme/name"])?,
            "\"Acme\"\n"
        );
        assert_eq!(
            world.print(&["get", id, "/companies/acme/name", "--raw"])?,
            "Acme\n"
        );
        assert_eq!(
            world.print(&["get", id, "/dates"])?,
            "[\n  \"2026-11-21\"\n]\n"
        );
        assert_eq!(world.print(&["get", id, "/n", "--raw"])?, "1.5\n");

        let seen = world.json(&["get", id, "--with-version"])?;
        let first = seen["version"].as_str().expect("a version");
        world.word(&["set", id, "/companies/acme/name", "--string", "-Acme Ltd"])?;
        world.word(&["set", id, "/n", "-5"])?;
        let version = world.word(&["patch", id, "/companies", r#"{"b": {}, "c": null}"#])?;
        let patch = r#"[{"op": "test", "path": "/n", "value": -5}, {"op": "add", "path": "/dates/-", "value": "2026-11-22"}]"#;
        world.word(&["patch", id, patch])?;
        let now = json!({
            "companies": { "acme": { "name": "-Acme Ltd" }, "b": {} },
            "dates": ["2026-11-21", "2026-11-22"],
            "n": -5,
        });
        assert_eq!(world.json(&["get", id])?, now);
        // As it was, and as it is written by somebody who has not seen the rest.
        assert_eq!(world.json(&["get", id, "--at", first])?, seen["value"]);
        assert_eq!(
            world.json(&["get", id, "/dates", "--at", &version])?,
            json!(["2026-11-21"])
        );
        let old = seen["value"].to_string().replace("1.5", "7");
        let merged = world.run(&["set", id, "", &old, "--if-match", first])?;
        assert!(merged.status.success(), "{merged:?}");
        // What is there now is not what was put: its version would be taken for that, and undo the rest.
        assert_eq!(String::from_utf8(merged.stdout)?, "");
        let said = String::from_utf8(merged.stderr)?;
        assert!(
            said.contains("merged with changes that you have not seen"),
            "{said}"
        );
        let mut merged = now.clone();
        merged["n"] = json!(7);
        assert_eq!(world.json(&["get", id])?, merged);

        assert_eq!(world.print(&["unset", id, "/companies/b"])?, "");
        let before = world.word(&["patch", id, "{}"])?;
        assert_eq!(
            world.word(&["set", id, "/n", "7"])?,
            before,
            "nothing was changed"
        );
        assert_eq!(
            world.json(&["get", id, "/companies"])?,
            json!({ "acme": { "name": "-Acme Ltd" } })
        );

        assert_eq!(world.word(&["create", "--id", "a b"])?, "a b");
        assert_eq!(world.json(&["get", "a b"])?, json!({}));
        let listed = world.print(&["list"])?;
        assert_eq!(listed.lines().count(), 2, "{listed}");
        assert!(
            listed.contains(&format!("{id:28}          7 changes")),
            "{listed}"
        );
        let listed = world.print(&["list", "--json"])?;
        let line: serde_json::Value = serde_json::from_str(listed.lines().next().expect("a line"))?;
        assert!(
            line["id"].is_string() && line["createdAt"].is_string(),
            "{line}"
        );
        Ok(())
    })
}

#[test]
fn json_comes_from_a_file_and_from_standard_input() -> Result<()> {
    in_both(|world| {
        let folder = tempfile::tempdir()?;
        let path = file(&folder, br#"{"from": "a file"}"#)?;
        let path = format!("@{}", path.display());
        let id = world.word(&["create", &path])?;
        let set = world.run_with("[1, 2]", &["set", &id, "/list", "-"])?;
        printed(&set)?;
        let patch = world.run_with(r#"{"from": null}"#, &["patch", &id, "-"])?;
        printed(&patch)?;
        assert_eq!(world.json(&["get", &id])?, json!({ "list": [1, 2] }));
        Ok(())
    })
}

/// The same as the HTTP API says, whoever is asked.
#[test]
fn what_json_lacks_is_written_as_the_api_has_it() -> Result<()> {
    in_both(|world| {
        let tagged = r#"{"c": {"$counter": 5}, "t": {"$timestamp": "2026-11-22T04:10:28.000Z"}, "b": {"$bytes": "AAEC"}}"#;
        let id = &*world.word(&["create", tagged, "--types", "tagged"])?;
        let plain = json!({ "c": 5, "t": "2026-11-22T04:10:28.000Z", "b": "AAEC" });
        assert_eq!(world.json(&["get", id])?, plain);
        assert_eq!(
            world.json(&["get", id, "--types", "tagged"])?,
            serde_json::from_str::<serde_json::Value>(tagged)?
        );
        world.word(&["set", id, "/c", "8"])?;
        assert_eq!(
            world.json(&["get", id, "/c", "--types", "tagged"])?,
            json!({ "$counter": 8 })
        );
        world.word(&[
            "patch",
            id,
            r#"{"d": {"$counter": 1}}"#,
            "--types",
            "tagged",
        ])?;
        assert_eq!(world.json(&["get", id, "/d"])?, json!(1));
        Ok(())
    })
}

/// An array is taken for a JSON Patch, and an object for a merge patch, unless that is said.
#[test]
fn a_patch_is_of_the_kind_that_is_named() -> Result<()> {
    in_both(|world| {
        let id = &*world.word(&["create", r#"{"a": 1}"#])?;
        world.word(&["patch", id, "/a", "[1]", "--merge"])?;
        assert_eq!(world.json(&["get", id])?, json!({ "a": [1] }));
        let (code, said) = world.fail(&["patch", id, "{}", "--json-patch"])?;
        assert_eq!(code, 1);
        assert!(said.starts_with("concord: bad-patch: "), "{said}");
        let (code, said) = world.fail(&["patch", id, "[1]"])?;
        assert_eq!(code, 1);
        assert!(said.starts_with("concord: bad-patch: "), "{said}");
        Ok(())
    })
}

#[test]
fn a_problem_is_told_with_its_code_and_changes_nothing() -> Result<()> {
    in_both(|world| {
        let id = &*world.word(&["create", "--id", "board", r#"{"a": [1]}"#])?;
        let unknown = "0".repeat(64);
        for (arguments, problem) in [
            (
                vec!["get", "nobody"],
                "no-document: there is no document nobody",
            ),
            (vec!["get", id, "/b/c"], "no-value: there is nothing at /b"),
            (
                vec!["get", id, "--at", &unknown],
                "no-version: the document never had that version",
            ),
            (vec!["get", id, "--at", "yesterday"], "bad-query: "),
            (
                vec!["set", "nobody", "/a", "1"],
                "no-document: there is no document nobody",
            ),
            (vec!["set", id, "/a/5", "1"], "no-value: "),
            (vec!["set", id, "", "[]"], "not-an-object: "),
            (
                vec!["set", id, "/a", "2", "--if-match", &unknown],
                "unknown-heads: ",
            ),
            (
                vec!["set", id, "/a", "2", "--if-match", "x\ny"],
                "if-match can't have that value",
            ),
            (vec!["unset", id, "/b"], "no-value: there is nothing at /b"),
            (vec!["unset", id, ""], "root: "),
            (
                vec!["patch", id, r#"[{"op": "test", "path": "/a", "value": 2}]"#],
                "test-failed: ",
            ),
            (
                vec!["create", "--id", "board", r#"{"a": 2}"#],
                "exists: the document is there, and differs",
            ),
            (vec!["create", "[]"], "not-an-object: "),
        ] {
            let (code, said) = world.fail(&arguments)?;
            assert!(
                said.starts_with(&format!("concord: {problem}")),
                "{arguments:?}: {said}"
            );
            let is_usage = problem.starts_with("if-match");
            assert_eq!(code, if is_usage { 2 } else { 1 }, "{arguments:?}");
        }
        assert_eq!(world.json(&["get", id])?, json!({ "a": [1] }));
        let changes = world.print(&["list"])?;
        assert!(changes.contains(" 1 changes"), "{changes}");
        // Who was not told that it was made, and makes it again, has made it.
        assert_eq!(
            world.word(&["create", "--id", "board", r#"{"a": [1]}"#])?,
            "board"
        );
        Ok(())
    })
}

#[test]
fn what_is_typed_wrong_is_no_request() -> Result<()> {
    in_both(|world| {
        for (arguments, said) in [
            (vec!["get"], "<ID>"),
            (vec!["get", "a", "b/c"], "a path is empty or begins with /"),
            (vec!["get", "a", "/~2"], "~"),
            (vec!["get", "\u{1b}[31m"], "control character"),
            (vec!["get", "automerge:x#y"], "heads"),
            (vec!["set", "a", "/b"], "<JSON>"),
            (
                vec!["set", "a", "/b", "c"],
                "\"c\" is not JSON: expected value at line 1 column 1; --string takes",
            ),
            (
                vec!["set", "a", "/b", "1 2"],
                "is not JSON: trailing characters",
            ),
            (vec!["set", "a", "/b", ""], "is not JSON"),
            (
                vec!["set", "a", "/b", "1", "--string", "x"],
                "cannot be used with",
            ),
            (vec!["patch", "a", "b", "{}"], "begins with /"),
            (vec!["patch", "a", "{"], "is not JSON"),
        ] {
            let (code, text) = world.fail(&arguments)?;
            assert_eq!(code, 2, "{arguments:?}: {text}");
            assert!(text.contains(said), "{arguments:?}: {text}");
        }
        let (code, said) = world.fail(&["set", "a", "/b", "@/nowhere"])?;
        assert_eq!(
            (code, said.contains("reading /nowhere")),
            (1, true),
            "{said}"
        );
        Ok(())
    })
}

/// Bounded as over HTTP, also where no HTTP is.
#[test]
fn what_no_document_may_have_is_refused() -> Result<()> {
    in_both(|world| {
        let id = world.word(&["create"])?;
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let output = world.run_with(&deep, &["set", &id, "/a", "-"])?;
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr)?;
        assert!(said.contains("has 100000 levels"), "{said}");
        // What a document may have can be set, though most parsers end before that.
        let levels = 200;
        let deep = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let output = world.run_with(&deep, &["set", &id, "/deep", "-"])?;
        assert!(output.status.success(), "{output:?}");
        let shown = world.print(&["get", &id, "/deep"])?;
        assert_eq!(shown.matches('[').count(), levels, "{shown}");
        world.print(&["unset", &id, "/deep"])?;
        let large = format!("\"{}\"", "x".repeat(9 << 20));
        let output = world.run_with(&large, &["set", &id, "/a", "-"])?;
        let said = String::from_utf8(output.stderr)?;
        assert!(said.starts_with("concord: body-too-large: "), "{said}");
        assert_eq!(world.json(&["get", &id])?, json!({}));
        Ok(())
    })
}

/// The same changes, of one document and of all.
#[test]
fn documents_are_exported_as_automerge_files() -> Result<()> {
    in_both(|world| {
        let folder = tempfile::tempdir()?;
        let to = folder.path().join("out");
        let out = to.display().to_string();
        for (id, n) in [("a", "1"), ("b/../c", "2")] {
            world.word(&["create", "--id", id, &format!(r#"{{"n": {n}}}"#)])?;
            world.word(&["set", id, "/more", "true"])?;
        }
        let said = world.print(&["export", "--to", &out, "a"])?;
        assert!(said.starts_with("1 documents exported to "), "{said}");
        let said = world.print(&["export", "--to", &out])?;
        assert!(said.ends_with(", 0 failed\n"), "{said}");
        for (name, n) in [("a", 1), ("b%2f%2e%2e%2fc", 2)] {
            let bytes = std::fs::read(to.join(format!("{name}.automerge")))?;
            let document = automerge::Automerge::load(&bytes)?;
            assert_eq!(document.stats().num_changes, 2);
            let value = concord_shared::json::to_json(
                &document.hydrate(None),
                concord_shared::json::Types::Plain,
            );
            assert_eq!(value, json!({ "n": n, "more": true }));
        }
        let output = world.run(&["export", "--to", &out, "nobody"])?;
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr)?;
        assert!(said.contains("there is no document nobody"), "{said}");
        Ok(())
    })
}
