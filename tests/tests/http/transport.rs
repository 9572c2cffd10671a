//! TLS that the server speaks itself: by stock clients, with certificates made here, replaced while connections are open.
//!
//! The clients know one authority and no other, so that what they take for the server is shown to be it; each thing that is
//! refused is shown to be taken where the one condition for it is met.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use concord_shared::DocumentId;
use concord_shared::wire::Message;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::{ServerProcess, binary};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use reqwest::StatusCode;
use reqwest::header::{COOKIE, HOST, ORIGIN};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::Connector;

use super::authentication::World;

const DAY_SECONDS: u64 = 24 * 60 * 60;
const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

/// Who makes certificates, and the files that a server reads them from.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self {
            issuer,
            directory: tempfile::tempdir()?,
        };
        fs::write(authority.path("ca.pem"), authority.issuer.pem())?;
        authority.renew(365 * DAY_SECONDS)?;
        Ok(authority)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Writes a new pair that ends in so many seconds; when that is, and the certificate.
    fn renew(&self, seconds: u64) -> Result<(u64, CertificateDer<'static>)> {
        let key = KeyPair::generate()?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let end = now + seconds;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(self.path("chain.pem"), certificate.pem())?;
        fs::write(self.path("key.pem"), key.serialize_pem())?;
        Ok((end, certificate.der().clone()))
    }

    fn arguments(&self) -> [String; 4] {
        [
            "--tls-cert".to_owned(),
            self.path("chain.pem"),
            "--tls-key".to_owned(),
            self.path("key.pem"),
        ]
    }

    fn start(&self, arguments: &[&str]) -> Result<ServerProcess> {
        let own = self.arguments();
        let mut all: Vec<_> = own.iter().map(String::as_str).collect();
        all.extend(arguments);
        ServerProcess::start_with(&all)
    }

    /// A client that knows this authority alone.
    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(versions)?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }

    fn connector(&self) -> Result<Connector> {
        Ok(Connector::Rustls(Arc::new(self.client(BOTH)?)))
    }

    fn http(&self, versions: &[&'static SupportedProtocolVersion]) -> Result<reqwest::Client> {
        let config = self.client(versions)?;
        let client = reqwest::Client::builder().tls_backend_preconfigured(config);
        Ok(client.pool_max_idle_per_host(0).build()?)
    }

    /// The certificate that a new handshake shows, and the protocol that is chosen of those offered.
    async fn shown(
        &self,
        server: &ServerProcess,
        protocols: &[&str],
    ) -> Result<(CertificateDer<'static>, Option<Vec<u8>>)> {
        let mut config = self.client(BOTH)?;
        let protocols = protocols.iter();
        config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        let tcp = tokio::net::TcpStream::connect(server.address()).await?;
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost")?;
        let stream = connector.connect(name, tcp).await?;
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates().context("a certificate")?;
        let first = chain.first().context("a certificate")?.clone();
        Ok((first, connection.alpn_protocol().map(<[u8]>::to_vec)))
    }
}

fn base(server: &ServerProcess) -> String {
    format!("https://{}", server.address())
}

fn socket_url(server: &ServerProcess) -> String {
    format!("wss://{}/sync", server.address())
}

/// Asks for a document that there is not, and takes the answer.
async fn is_alive(client: &mut RawClient) -> Result<()> {
    let nobodys = DocumentId::new("4NMNnkMhL8jXrdJ9jamS58PAVdXu")?;
    client.ask(&nobodys).await?;
    match client.next().await? {
        Message::DocUnavailable { .. } => Ok(()),
        other => bail!("{other:?}"),
    }
}

async fn metric(http: &reqwest::Client, server: &ServerProcess, name: &str) -> Result<f64> {
    let text = http.get(format!("{}/metrics", base(server)));
    let text = text.send().await?.text().await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.context("no such metric")?.trim().parse()?)
}

#[tokio::test]
async fn stock_clients_speak_tls_and_are_told_to_stay_with_it() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.start(&[])?;
    let line = format!(
        "concord listening on {} (WebSocket {})",
        base(&server),
        socket_url(&server)
    );
    ensure!(server.log().contains(&line), "{}", server.log());
    // More than fits into any buffer, there and back, by either version.
    let text = "0123456789abcdef".repeat(20_000);
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let http = authority.http(versions)?;
        let made = http.post(format!("{}/v1/documents", base(&server)));
        let made = made.json(&json!({ "text": text })).send().await?;
        ensure!(made.status() == StatusCode::CREATED, "{made:?}");
        let place = made.headers()["location"].to_str()?.to_owned();
        let read = http.get(format!("{}{place}/value/text", base(&server)));
        ensure!(read.send().await?.json::<String>().await? == text);
    }
    let http = authority.http(BOTH)?;
    for (host, expected) in [("127.0.0.1", "max-age=86400"), ("concord.localhost", "")] {
        let answer = http.get(format!("{}/healthz", base(&server)));
        let answer = answer.header(HOST, host).send().await?;
        let found = answer.headers().get("strict-transport-security");
        let found = found.map_or("", |value| value.to_str().unwrap_or("?"));
        ensure!(found == expected, "{host}: {found}");
    }
    let mut client =
        RawClient::join_over(&socket_url(&server), "tab", authority.connector()?).await?;
    is_alive(&mut client).await?;

    let (_, chosen) = authority.shown(&server, &["h2", "http/1.1"]).await?;
    ensure!(chosen.context("a protocol")? == b"http/1.1");
    ensure!(authority.shown(&server, &["h2"]).await.is_err());
    // Nobody else's word counts.
    let stranger = Authority::new()?;
    ensure!(stranger.shown(&server, &[]).await.is_err());

    let server = authority.start(&["--hsts-seconds", "0"])?;
    let answer = http
        .get(format!("{}/healthz", base(&server)))
        .send()
        .await?;
    let found = answer.headers().get("strict-transport-security");
    ensure!(found.is_none(), "{found:?}");
    Ok(())
}

/// What a message has come to is reckoned without what TLS adds to each record: a tab that only answers pings has begun none.
#[tokio::test]
async fn a_tab_that_is_idle_stays() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.start(&["--stall-seconds", "2", "--keep-alive-seconds", "1"])?;
    let connector = authority.connector()?;
    let mut client = RawClient::join_over(&socket_url(&server), "tab", connector).await?;
    let ended = tokio::time::timeout(Duration::from_secs(7), client.refusal()).await;
    ensure!(ended.is_err(), "{ended:?}");
    is_alive(&mut client).await
}

#[test]
fn files_that_are_no_pair_stop_the_start() -> Result<()> {
    let authority = Authority::new()?;
    let key = authority.path("key.pem");
    fs::write(&key, KeyPair::generate()?.serialize_pem())?;
    let arguments = authority.arguments();
    let data = authority.directory.path().join("data");
    for (arguments, expected) in [
        (&arguments[..], "is not that of the first certificate"),
        (&arguments[..2], "--tls-key is missing"),
        (&arguments[2..], "--tls-cert is missing"),
    ] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let Err(error) = ServerProcess::start_at(&data, &arguments) else {
            bail!("it started: {expected}");
        };
        let told = format!("{error:#}");
        ensure!(told.contains(expected), "{told}");
        ensure!(!data.exists(), "something was made: {expected}");
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_replaced_while_connections_are_open() -> Result<()> {
    const REPLACED: &str = "the TLS certificate was replaced";
    const KEPT: &str = "the former TLS certificate is kept";
    const METRIC: &str = "concord_tls_certificate_expires_seconds ";
    let authority = Authority::new()?;
    let (end, first) = authority.renew(3 * DAY_SECONDS)?;
    let server = authority.start(&[])?;
    server.wait_for_log("the TLS certificate expires soon")?;
    let http = authority.http(BOTH)?;
    let told = metric(&http, &server, METRIC).await?;
    ensure!((told - end as f64).abs() < 1.0, "{told}");
    ensure!(authority.shown(&server, &[]).await?.0 == first);
    let connector = authority.connector()?;
    let mut open = RawClient::join_over(&socket_url(&server), "tab", connector).await?;

    let (end, second) = authority.renew(90 * DAY_SECONDS)?;
    server.hang_up()?;
    server.wait_for_log(REPLACED)?;
    ensure!(authority.shown(&server, &[]).await?.0 == second);
    let told = metric(&http, &server, METRIC).await?;
    ensure!((told - end as f64).abs() < 1.0, "{told}");
    is_alive(&mut open).await?;

    // Broken, and looked at twice: said once, and nothing changes.
    let chain = fs::read(authority.path("chain.pem"))?;
    fs::write(authority.path("chain.pem"), &chain[..chain.len() / 2])?;
    server.hang_up()?;
    server.wait_for_log(KEPT)?;
    server.hang_up()?;
    ensure!(authority.shown(&server, &[]).await?.0 == second);
    is_alive(&mut open).await?;

    // Nobody has to say that there is a new one.
    let (_, third) = authority.renew(90 * DAY_SECONDS)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while authority.shown(&server, &[]).await?.0 != third {
        ensure!(Instant::now() < deadline, "it was not looked at");
        is_alive(&mut open).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let log = server.log();
    let count = |text| log.matches(text).count();
    ensure!((count(REPLACED), count(KEPT)) == (2, 1), "{log}");
    is_alive(&mut open).await
}

#[test]
fn an_expired_certificate_is_shown_and_told() -> Result<()> {
    let authority = Authority::new()?;
    authority.renew(0)?;
    let server = authority.start(&[])?;
    server.wait_for_log("the TLS certificate has expired")
}

/// A byte now and then, from a client that never comes to the end of its handshake.
#[test]
fn a_slow_handshake_is_cut() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.start(&["--handshake-seconds", "2"])?;
    // The beginning of a record of 512 bytes with a ClientHello of 508; and nothing at all.
    let begun = [&[22, 3, 1, 2, 0, 1, 0, 1, 252][..], &[]];
    for begun in begun {
        let mut slow = TcpStream::connect(server.address())?;
        slow.set_read_timeout(Some(Duration::from_millis(100)))?;
        let started = Instant::now();
        slow.write_all(begun)?;
        loop {
            let took = started.elapsed();
            ensure!(took < Duration::from_secs(6), "it may go on");
            match slow.read(&mut [0; 64]) {
                Ok(0) => break,
                Ok(_) => bail!("it was answered"),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(_) if begun.is_empty() => {}
                Err(_) => slow.write_all(&[3]).unwrap_or_default(),
            }
        }
        let took = started.elapsed();
        ensure!(took > Duration::from_millis(1500), "{took:?}");
    }
    // Others are not held up by one that is slow.
    let _slow = TcpStream::connect(server.address())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let asked = authority
        .http(BOTH)?
        .get(format!("{}/readyz", base(&server)));
    let answer = runtime.block_on(async { asked.send().await?.error_for_status() })?;
    ensure!(answer.status() == StatusCode::OK);
    let asked = authority
        .http(BOTH)?
        .get(format!("{}/metrics", base(&server)));
    let metrics = runtime.block_on(async { asked.send().await?.text().await })?;
    // The last one may have had its time, too.
    let counted =
        ["2", "3"].map(|n| format!("concord_limited_total{{limit=\"handshakes\"}} {n}\n"));
    ensure!(
        counted.iter().any(|line| metrics.contains(line)),
        "not counted"
    );
    Ok(())
}

#[test]
fn what_is_not_encrypted_gets_no_answer_that_looks_like_one() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.start(&[])?;
    let told = |sent: &[u8]| -> Result<String> {
        let mut plain = TcpStream::connect(server.address())?;
        plain.set_read_timeout(Some(Duration::from_secs(20)))?;
        plain.write_all(sent)?;
        let mut told = Vec::new();
        match plain.read_to_end(&mut told) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => bail!(error),
            _ => Ok(String::from_utf8_lossy(&told).into_owned()),
        }
    };
    let (status, body) = server.get("/healthz")?;
    ensure!((status, body.contains("HTTPS")) == (400, true), "{body}");
    let long = format!(
        "POST /v1/documents HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}",
        "x".repeat(9000)
    );
    ensure!(told(long.as_bytes())?.starts_with("HTTP/1.1 400 "));
    ensure!(told(b"\x00\x01\x02\x03")?.is_empty());
    // A record that is no handshake's gets TLS's own alert, which is no text.
    let alert = told(&[&[22, 3, 1, 0, 5][..], b"GET /"].concat())?;
    ensure!(!alert.contains("HTTP"), "{alert}");
    Ok(())
}

/// Over TLS a page that came without it is another site's, whatever its host.
#[tokio::test]
async fn a_cookie_is_for_pages_that_came_encrypted() -> Result<()> {
    let authority = Authority::new()?;
    let own = authority.arguments();
    let mut arguments: Vec<_> = own.iter().map(String::as_str).collect();
    arguments.extend(["--auth-cookie", "session"]);
    let world = World::start(&arguments)?;
    let http = authority.http(BOTH)?;
    let cookie = format!("session={}", world.token("ann", 3600)?);
    let address = world.server.address();
    for (origin, status) in [
        (format!("https://{address}"), StatusCode::CREATED),
        (format!("http://{address}"), StatusCode::FORBIDDEN),
    ] {
        let asked = http.post(format!("{}/v1/documents", base(&world.server)));
        let asked = asked.header(COOKIE, &cookie).header(ORIGIN, &origin);
        let answer = asked.json(&json!({})).send().await?;
        ensure!(answer.status() == status, "{origin}: {}", answer.status());
    }
    Ok(())
}

#[test]
fn commands_know_a_server_by_an_authority_of_ones_own() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.start(&[])?;
    let ca = authority.path("ca.pem");
    let url = format!("https://localhost:{}", server.address().port());
    let run = |arguments: &[&str], variable: Option<&str>| -> Result<(bool, String, String)> {
        let mut command = Command::new(binary()?);
        command.args(arguments).env_remove("CONCORD_CA_CERT");
        if let Some(path) = variable {
            command.env("CONCORD_CA_CERT", path);
        }
        let output = command.output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        let (told, wrong) = (text(&output.stdout), text(&output.stderr));
        Ok((output.status.success(), told, wrong))
    };
    let create = ["create", "{\"a\": 1}", "--url", &url];
    let (is_made, _, wrong) = run(&create, None)?;
    ensure!(!is_made, "a certificate of nobody's was taken");
    ensure!(wrong.contains("certificate"), "{wrong}");
    let (is_made, _, wrong) = run(&create, Some(&authority.path("key.pem")))?;
    ensure!(
        !is_made && wrong.contains("no certificate is in"),
        "{wrong}"
    );
    let (is_made, id, wrong) = run(&create, Some(&ca))?;
    ensure!(is_made, "{wrong}");
    let (is_read, value, wrong) = run(&["get", &id, "/a", "--url", &url, "--ca-cert", &ca], None)?;
    ensure!(is_read && value == "1", "{value}{wrong}");

    // And those that speak WebSockets.
    let from = url.replace("https:", "wss:") + "/sync";
    let to = authority.path("recording");
    let record = ["record", &id, "--from", &from, "--for", "1", "--to", &to];
    let (is_recorded, _, wrong) = run(&record, None)?;
    ensure!(!is_recorded && wrong.contains("certificate"), "{wrong}");
    let (is_recorded, _, wrong) = run(&record, Some(&ca))?;
    ensure!(is_recorded, "{wrong}");
    ensure!(fs::read_to_string(&to)?.lines().count() > 1, "{wrong}");
    // A server's settings have nothing to do with it.
    let (is_printed, settings, wrong) = run(&["serve", "--print-config"], Some(&ca))?;
    ensure!(is_printed && settings.contains("listen"), "{wrong}");
    Ok(())
}
