//! What holds for all of `/v1`: whom it is for, what is compressed, what addresses take, and what strange requests come to.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::Result;
use concord_tests::server_process::ServerProcess;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, IF_MATCH, IF_NONE_MATCH, ORIGIN, VARY,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::requests::{problem, run};
use super::rest::{Rest, send};

fn run_with<F: Future<Output = Result<()>>>(
    arguments: &[&str],
    test: impl FnOnce(Rest, ServerProcess) -> F,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start_with(arguments).unwrap();
    runtime
        .block_on(test(Rest::new(server.address()), server))
        .unwrap();
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    run_with(&[], async |rest, server| {
        let url = rest
            .post("/v1/documents", &json!({ "a": 1 }))
            .await?
            .location
            .unwrap();
        let before = rest.get(&url).await?;
        let host = server.address();
        // What any form or script of a foreign page could send without being asked first.
        for (method, path) in [
            (Method::POST, "/v1/documents"),
            (Method::POST, &*format!("{url}/value")),
            (Method::PUT, &*url),
            (Method::DELETE, &*format!("{url}/value/a")),
        ] {
            for (name, value) in [
                ("origin", "https://evil.example"),
                ("origin", "null"),
                ("origin", &*format!("http://localhost:{}", host.port() - 1)),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-site", "same-site"),
            ] {
                let request = rest.request(method.clone(), path).header(name, value);
                let refused = send(request.body("{}")).await?;
                assert_eq!(
                    problem(&refused)?,
                    (403, "foreign-origin".into()),
                    "{method} {path} {name} {value}"
                );
            }
        }
        assert_eq!(rest.get(&url).await?.etag, before.etag);
        let listed = rest.get("/v1/documents").await?.json()?;
        assert_eq!(listed["documents"].as_array().unwrap().len(), 1);
        // The server's own pages may, and so may programs; and reading is the browser's business.
        for (name, value) in [
            ("origin", &*format!("http://{host}")),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
        ] {
            let request = rest.request(Method::PUT, &url).header(name, value);
            send(request.json(&json!({ "a": 1 }))).await?.good()?;
        }
        let foreign = rest
            .request(Method::GET, &url)
            .header(ORIGIN, "https://evil.example");
        let foreign = send(foreign).await?.good()?;
        assert_eq!(foreign.header("access-control-allow-origin"), "");
        Ok(())
    });
}

#[test]
fn a_name_that_somebody_let_point_here_is_not_answered_to() {
    run_with(&["--host", "Concord.example"], async |rest, _server| {
        for (host, status) in [
            ("localhost:4010", 200),
            ("[::1]:4010", 200),
            ("concord.example", 200),
            ("app.localhost", 200),
            ("rebound.example:4010", 421),
            ("localhost.example", 421),
        ] {
            let answer = send(
                rest.request(Method::GET, "/v1/documents")
                    .header(HOST, host),
            )
            .await?;
            assert_eq!(answer.status.as_u16(), status, "{host}");
            if status == 421 {
                assert_eq!(problem(&answer)?.1, "unknown-host");
            }
        }
        Ok(())
    });
}

#[test]
fn pages_of_sites_that_are_named_may_read_and_write() {
    let site = "https://app.example";
    run_with(
        &[
            "--cors-origin",
            site,
            "--cors-origin",
            "http://localhost:5173",
        ],
        async |rest, _server| {
            let ask = async |origin: &str| {
                let request = rest.request(Method::OPTIONS, "/v1/documents/x/value/a");
                let request = request.header(ORIGIN, origin);
                let request = request.header("access-control-request-method", "PATCH");
                send(request.header(
                    "access-control-request-headers",
                    "if-match,idempotency-key,prefer",
                ))
                .await
            };
            let answer = ask(site).await?;
            assert_eq!(answer.header("access-control-allow-origin"), site);
            assert!(
                answer
                    .header("access-control-allow-methods")
                    .contains("PATCH")
            );
            for name in [
                "content-type",
                "if-match",
                "if-none-match",
                "idempotency-key",
                "prefer",
                "last-event-id",
            ] {
                assert!(
                    answer.header("access-control-allow-headers").contains(name),
                    "{name}"
                );
            }
            assert_eq!(answer.header("access-control-max-age"), "7200");
            assert_eq!(
                ask("https://evil.example")
                    .await?
                    .header("access-control-allow-origin"),
                ""
            );
            // And then.
            let request = rest
                .request(Method::POST, "/v1/documents")
                .header(ORIGIN, site);
            let request = request.header("sec-fetch-site", "cross-site");
            let made = send(request.json(&json!({}))).await?.good()?;
            assert_eq!(made.header("access-control-allow-origin"), site);
            for name in ["etag", "location", "preference-applied"] {
                assert!(
                    made.header("access-control-expose-headers").contains(name),
                    "{name}"
                );
            }
            assert!(made.header(VARY.as_str()).contains("origin"));
            let url = made.location.unwrap();
            let other = rest
                .request(Method::PUT, &url)
                .header(ORIGIN, "http://localhost:5174");
            let other = send(other.json(&json!({}))).await?;
            assert_eq!(problem(&other)?, (403, "foreign-origin".into()));
            // Problems can be read there, too.
            let missing = rest
                .request(Method::GET, "/v1/documents/none")
                .header(ORIGIN, site);
            let missing = send(missing).await?;
            assert_eq!(missing.header("access-control-allow-origin"), site);
            assert_eq!(missing.status, StatusCode::NOT_FOUND);
            // An OPTIONS that no browser asks says what there is.
            let options = send(rest.request(Method::OPTIONS, &url)).await?;
            assert!(options.header("allow").contains("PUT"));
            Ok(())
        },
    );
    run_with(&["--cors-origin", "*"], async |rest, _server| {
        let request = rest
            .request(Method::POST, "/v1/documents")
            .header(ORIGIN, "null");
        let made = send(request.json(&json!({}))).await?.good()?;
        assert_eq!(made.header("access-control-allow-origin"), "*");
        Ok(())
    });
    let refused = ServerProcess::start_with(&["--cors-origin", "app.example"]);
    assert!(format!("{:#}", refused.unwrap_err()).contains("cors-origin"));
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn long_answers_are_compressed_for_who_takes_that() {
    run(async |rest| {
        let long = json!({ "text": "All work and no play. ".repeat(20_000) });
        let url = rest.post("/v1/documents", &long).await?.location.unwrap();
        let plain = rest.get(&url).await?;
        let get = async |encoding: &str, etag: Option<&str>| {
            let mut request = rest
                .request(Method::GET, &url)
                .header(ACCEPT_ENCODING, encoding);
            if let Some(etag) = etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            send(request).await
        };
        let small = get("gzip", None).await?;
        assert_eq!(small.header(CONTENT_ENCODING.as_str()), "gzip");
        assert!(
            small.body.len() * 20 < plain.body.len(),
            "{} bytes",
            small.body.len()
        );
        let mut inflated = Vec::new();
        GzDecoder::new(&small.body[..]).read_to_end(&mut inflated)?;
        assert_eq!(inflated, plain.body);
        assert_ne!(small.etag, plain.etag);
        for answer in [&small, &plain] {
            assert!(answer.header(VARY.as_str()).contains("accept-encoding"));
        }
        let head = rest
            .request(Method::HEAD, &url)
            .header(ACCEPT_ENCODING, "gzip");
        assert_eq!(send(head).await?.etag, small.etag);
        // Its tag is as good as any: to ask whether it is new, and to write.
        let fresh = get("gzip", small.etag.as_deref()).await?;
        assert_eq!(
            (fresh.status, &fresh.etag),
            (StatusCode::NOT_MODIFIED, &small.etag)
        );
        let put = rest
            .request(Method::PUT, &format!("{url}/value/n"))
            .header(IF_MATCH, small.etag()?);
        send(put.json(&json!(1))).await?.good()?;
        // Who takes nothing that there is gets it as it is, whatever the RFC would allow: it may be done by then.
        for encoding in [
            "br",
            "gzip;q=0",
            "identity",
            "gzip;q=0.1, identity;q=1",
            "*;q=0",
            "identity;q=0",
        ] {
            let answer = get(encoding, None).await?;
            assert_eq!(
                (answer.status, &*answer.header(CONTENT_ENCODING.as_str())),
                (StatusCode::OK, ""),
                "{encoding}"
            );
        }
        for path in [format!("{url}/value/n"), "/v1/documents".to_owned()] {
            let short = rest
                .request(Method::GET, &path)
                .header(ACCEPT_ENCODING, "gzip");
            assert_eq!(
                send(short).await?.header(CONTENT_ENCODING.as_str()),
                "",
                "{path}"
            );
        }
        let bytes = rest
            .request(Method::GET, &url)
            .header(ACCEPT_ENCODING, "gzip");
        let bytes = send(bytes.header("accept", "application/vnd.automerge")).await?;
        assert_eq!(bytes.header(CONTENT_ENCODING.as_str()), "");
        Ok(())
    });
}

#[test]
fn bodies_may_come_compressed_and_are_bounded_as_others_are() {
    run(async |rest| {
        let post = async |coding: &str, body: Vec<u8>| {
            let request = rest
                .request(Method::POST, "/v1/documents")
                .header(CONTENT_TYPE, "application/json");
            send(request.header(CONTENT_ENCODING, coding).body(body)).await
        };
        let json = json!({ "text": "x".repeat(100_000) });
        for coding in ["gzip", "x-gzip", "GZIP", "identity, gzip"] {
            let made = post(coding, zipped(json.to_string().as_bytes())).await?;
            assert_eq!(
                (made.status, made.json()?),
                (StatusCode::CREATED, json.clone()),
                "{coding}"
            );
        }
        let document = automerge::AutoCommit::new().save();
        let import = rest
            .request(Method::POST, "/v1/documents")
            .header(CONTENT_TYPE, "application/vnd.automerge");
        send(
            import
                .header(CONTENT_ENCODING, "gzip")
                .body(zipped(&document)),
        )
        .await?
        .good()?;
        // A thousand times as many bytes as were sent; more than are taken, and it ends there.
        let bomb = zipped(&vec![b' '; 200 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(
            problem(&post("gzip", bomb.clone()).await?)?,
            (413, "body-too-large".into())
        );
        let import = rest
            .request(Method::POST, "/v1/documents")
            .header(CONTENT_TYPE, "application/vnd.automerge");
        let large = send(import.header(CONTENT_ENCODING, "gzip").body(bomb)).await?;
        assert_eq!(problem(&large)?, (413, "body-too-large".into()));
        let whole = zipped(b"{}");
        for bad in [&whole[..whole.len() - 1], b"{}", b""] {
            assert_eq!(
                problem(&post("gzip", bad.to_vec()).await?)?,
                (400, "bad-body".into())
            );
        }
        for coding in ["br", "zstd", "gzip, gzip", "?"] {
            let refused = post(coding, whole.clone()).await?;
            assert_eq!(
                problem(&refused)?,
                (415, "unsupported-coding".into()),
                "{coding}"
            );
            assert_eq!(refused.header("accept-encoding"), "gzip");
        }
        Ok(())
    });
}

#[test]
fn addresses_say_what_they_take() {
    run(async |rest| {
        let url = rest
            .post("/v1/documents", &json!({ "a": [] }))
            .await?
            .location
            .unwrap();
        let value = format!("{url}/value/a");
        let patches = "application/merge-patch+json, application/json-patch+json";
        for (path, methods, accept_patch) in [
            ("/v1/documents", &["GET", "HEAD", "POST"][..], ""),
            (&*url, &["GET", "HEAD", "PUT", "DELETE"], ""),
            (
                &*value,
                &["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"],
                patches,
            ),
        ] {
            for method in [Method::OPTIONS, Method::TRACE] {
                let answer = send(rest.request(method.clone(), path)).await?;
                let expected = if method == Method::OPTIONS { 204 } else { 405 };
                assert_eq!(answer.status.as_u16(), expected, "{method} {path}");
                let allow = answer.header("allow");
                let mut allowed: Vec<_> = allow.split(',').collect();
                let mut methods = methods.to_vec();
                allowed.sort_unstable();
                methods.sort_unstable();
                assert_eq!(allowed, methods, "{method} {path}");
                assert_eq!(answer.header("accept-patch"), accept_patch);
            }
        }
        let patch = rest.patch(&value, "text/plain", &json!([])).await?;
        assert_eq!(problem(&patch)?, (415, "unsupported-media-type".into()));
        assert_eq!(patch.header("accept-patch"), patches);
        let put = rest
            .request(Method::PUT, &value)
            .header(CONTENT_TYPE, "text/plain");
        assert_eq!(send(put.body("1")).await?.header("accept-patch"), "");
        for path in ["/v1", "/v1/", "/v1/nothing", "/v2"] {
            assert_eq!(
                rest.get(path).await?.status,
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
        assert_eq!(problem(&rest.get("/v1").await?)?, (404, "no-route".into()));
        Ok(())
    });
}

#[test]
fn json_is_read_as_its_rfc_has_it() {
    run(async |rest| {
        let url = rest
            .post("/v1/documents", &json!({}))
            .await?
            .location
            .unwrap();
        let value = format!("{url}/value/v");
        let put = async |kind: &str, body: &[u8]| {
            let request = rest.request(Method::PUT, &value).header(CONTENT_TYPE, kind);
            send(request.body(body.to_vec())).await
        };
        let json = "application/json";
        for (body, shown) in [
            (&br#"{"a":1,"a":2}"#[..], json!({ "a": 2 })),
            (b"18446744073709551615", json!(u64::MAX)),
            (b"-9223372036854775808", json!(i64::MIN)),
            // Beyond 64 bits a number is what JavaScript has.
            (b"18446744073709551616", json!(18_446_744_073_709_551_616.0)),
            (b"1e-999", json!(0.0)),
            (br#""\ud83d\ude00\u0000""#, json!("\u{1f600}\0")),
            (b" \r\n\t1 ", json!(1)),
        ] {
            let text = String::from_utf8_lossy(body).into_owned();
            let answer = put(json, body).await?.good()?;
            assert_eq!(answer.json()?, shown, "{text}");
            assert_eq!(rest.get(&value).await?.json()?, shown, "{text}");
        }
        let before = rest.get(&url).await?.etag;
        for body in [
            &b"1e999"[..],
            b"-1e999",
            br#""\ud800""#,
            br#""\ude00\ud83d""#,
            b"\xef\xbb\xbf1",
            b"\xff\xfe1\0",
            b"NaN",
            b"01",
            b"'a'",
            b"[1,]",
            b"// 1\n1",
            b"",
        ] {
            let refused = put(json, body).await?;
            assert_eq!(problem(&refused)?, (400, "bad-json".into()), "{body:?}");
        }
        for kind in [
            "application/json; charset=utf-16",
            "application/json;charset=\"ISO-8859-1\"",
            "application/x-www-form-urlencoded",
            "text/json",
            "json",
            ";",
        ] {
            let refused = put(kind, b"1").await?;
            assert_eq!(
                problem(&refused)?,
                (415, "unsupported-media-type".into()),
                "{kind}"
            );
        }
        assert_eq!(rest.get(&url).await?.etag, before);
        for kind in [
            "application/json; charset=UTF-8",
            "Application/JSON",
            "application/ld+json",
            "application/json;charset=\"utf-8\"",
        ] {
            put(kind, b"1").await?.good()?;
        }
        Ok(())
    });
}

#[test]
fn preferences_are_read_as_lists_and_an_answer_without_the_value_names_no_version_that_its_reader_lacks()
 {
    run(async |rest| {
        let url = rest
            .post("/v1/documents", &json!({ "a": 1, "b": 1 }))
            .await?
            .location
            .unwrap();
        let put = async |prefer: &str, seen: Option<&str>, json: &Value| {
            let mut request = rest.request(Method::PUT, &url).header("prefer", prefer);
            if let Some(seen) = seen {
                request = request.header(IF_MATCH, seen);
            }
            send(request.json(json)).await?.good()
        };
        let value = json!({ "a": 2, "b": 1 });
        for prefer in [
            "return=minimal",
            "Return=\"minimal\"",
            "respond-async, wait=5; x=1 , return=minimal",
        ] {
            let answer = put(prefer, None, &value).await?;
            assert_eq!(answer.status, StatusCode::NO_CONTENT, "{prefer}");
            assert_eq!(answer.header("preference-applied"), "return=minimal");
            assert_eq!(answer.etag, rest.get(&url).await?.etag);
        }
        // The first one counts (RFC 7240, section 2).
        for prefer in [
            "return=representation, return=minimal",
            "return=maximal",
            "handling=lenient",
            "minimal",
        ] {
            assert_eq!(
                put(prefer, None, &value).await?.status,
                StatusCode::OK,
                "{prefer}"
            );
        }
        // Whoever keeps what they sent, with the tag of what it became, would take back what others wrote.
        let old = rest.get(&url).await?.etag()?.to_owned();
        rest.put(&format!("{url}/value/b"), &json!(2))
            .await?
            .good()?;
        let merged = put("return=minimal", Some(&old), &json!({ "a": 3, "b": 1 })).await?;
        assert_eq!(merged.etag, None);
        assert_eq!(rest.get(&url).await?.json()?, json!({ "a": 3, "b": 2 }));
        // As long as nothing came between, there is nothing to lose.
        let old = rest.get(&url).await?.etag()?.to_owned();
        let alone = put("return=minimal", Some(&old), &json!({ "a": 4, "b": 2 })).await?;
        assert_eq!(alone.etag, rest.get(&url).await?.etag);
        Ok(())
    });
}

/// What a server says to bytes, up to the end of the connection or of a moment.
fn raw(server: &ServerProcess, bytes: &[u8]) -> String {
    let mut connection = TcpStream::connect(server.address()).unwrap();
    let moment = std::time::Duration::from_secs(5);
    connection.set_read_timeout(Some(moment)).unwrap();
    connection.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = connection.read(&mut piece) {
        answer.extend_from_slice(&piece[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn strange_requests_are_answered_as_the_rfcs_have_it() {
    let server = ServerProcess::start().unwrap();
    let status = |bytes: &str| {
        let answer = raw(&server, bytes.as_bytes());
        answer.split(' ').nth(1).unwrap_or("").to_owned()
    };
    let close = "Connection: close\r\n\r\n";
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{close}");
    assert_eq!(status(&get("/v1/documents")), "200");
    assert_eq!(status("GET /v1/documents HTTP/1.0\r\n\r\n"), "200");
    assert_eq!(
        status(&format!("GET /v1/documents HTTP/1.1\r\n{close}")),
        "400"
    );
    assert_eq!(
        status(&format!(
            "GET /v1/documents HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n{close}"
        )),
        "400"
    );
    // The target's own name goes before the header's.
    assert_eq!(status(&get("http://localhost/v1/documents")), "200");
    assert_eq!(status(&get("http://rebound.example/v1/documents")), "421");
    assert_eq!(status(&get("/v1/documents/%FF")), "400");
    assert_eq!(status(&get("/v1/documents/%")), "404");
    assert_eq!(
        status(&get(&format!(
            "/v1/documents?limit=1&after={}",
            "x".repeat(20_000)
        ))),
        "400"
    );
    assert_eq!(status(&get(&format!("/{}", "x".repeat(100_000)))), "431");
    let asked = "PUT /v1/documents/expected HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n";
    assert_eq!(status(&format!("{asked}{close}")), "100");
    // Who is refused need not send it.
    let foreign = format!("{asked}Origin: https://evil.example\r\n{close}");
    assert_eq!(status(&foreign), "403");
    let chunked = "PUT /v1/documents/chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    assert_eq!(status(chunked), "201");
}
