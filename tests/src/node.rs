//! A stock automerge-repo client in a Node process of its own, driven line by line.
//!
//! The other half is `interop/client.mjs`, which documents the commands. A client that fails or
//! is dropped takes its process with it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// No command waits longer than this; those that wait for others have shorter limits of their own.
const CALL_TIMEOUT: Duration = Duration::from_mins(2);

/// How a client connects; every field has the stock default if left out.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// A directory to keep documents and sync states in; none: in memory, and an ephemeral peer.
    pub storage: Option<PathBuf>,
    /// A peer id of one's own; none: random, as the stock client does.
    pub peer_id: Option<String>,
    /// Remote heads: on or off.
    pub gossip: bool,
    /// Storage ids whose heads the client asks to be told of.
    pub subscribe: Vec<String>,
    /// Made, but not connected until [`NodeClient::online`].
    pub offline: bool,
}

/// Who answered a handshake.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// The server's peer id.
    pub peer_id: String,
    /// Its storage id, which it should name, being no ephemeral peer.
    pub storage_id: Option<String>,
    /// Whether it says that it forgets.
    pub is_ephemeral: Option<bool>,
}

/// What a client sees of a document.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct View {
    /// The document as JSON; counters are numbers, texts are strings.
    pub value: Value,
    /// Sorted hexadecimal hashes.
    pub heads: Vec<String>,
    /// How many changes it holds.
    pub changes: u64,
}

/// A document to its last bit, as one client has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Dump {
    /// As saved, in hexadecimal.
    pub file: String,
    /// What the program sees, values that are no JSON too.
    pub shown: String,
}

/// The outcome of looking for a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// It is here.
    Ready,
    /// The server says that it has no such document.
    Unavailable,
}

/// One client process.
#[derive(Debug)]
pub struct NodeClient {
    name: String,
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    next_id: u64,
    log: Arc<Mutex<String>>,
    /// The peer id this client joined with.
    pub peer_id: String,
    /// Its own storage id, if it has storage.
    pub storage_id: Option<String>,
}

impl NodeClient {
    /// A client with the stock defaults, connected to `url`.
    pub async fn connect(name: &str, url: &str) -> Result<Self> {
        Self::connect_with(name, url, NodeOptions::default()).await
    }

    /// A client with options; `name` is for failure messages. Unless it is to be off-line, it is
    /// connected on return: the stock client calls documents unavailable if the server has not
    /// answered a second after its start, which on a busy machine says nothing about the server.
    pub async fn connect_with(name: &str, url: &str, options: NodeOptions) -> Result<Self> {
        let mut client = Self::spawn(name)?;
        let NodeOptions {
            storage,
            peer_id,
            gossip,
            subscribe,
            offline,
        } = options;
        let mut request =
            json!({ "url": url, "gossip": gossip, "subscribe": subscribe, "offline": offline });
        if let Some(storage) = storage {
            request["storage"] = json!(storage);
        }
        if let Some(peer_id) = peer_id {
            request["peerId"] = json!(peer_id);
        }
        let me = client.call("connect", request).await?;
        client.peer_id = text(&me, "peerId")?;
        client.storage_id = text(&me, "storageId").ok();
        if !offline {
            client.server().await?;
        }
        Ok(client)
    }

    fn spawn(name: &str) -> Result<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop");
        ensure!(
            directory.join("node_modules").is_dir(),
            "{0} has no node_modules: run `cargo xtask test`, or `npm ci` in {0}",
            directory.display()
        );
        let mut child = Command::new("node")
            .arg("client.mjs")
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting node")?;
        let stdin = child.stdin.take().context("a piped stdin")?;
        let stdout = child.stdout.take().context("a piped stdout")?;
        let stderr = child.stderr.take().context("a piped stderr")?;
        let log = Arc::new(Mutex::new(String::new()));
        let kept = log.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(mut kept) = kept.lock() {
                    kept.push_str(&line);
                    kept.push('\n');
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            stdin,
            answers: BufReader::new(stdout).lines(),
            next_id: 0,
            log,
            peer_id: String::new(),
            storage_id: None,
        })
    }

    /// Runs one command of `client.mjs` and returns its result.
    pub async fn call(&mut self, command: &str, parameters: Value) -> Result<Value> {
        match tokio::time::timeout(CALL_TIMEOUT, self.exchange(command, parameters)).await {
            Ok(answer) => answer,
            Err(_) => bail!("{} {command}: no answer within {CALL_TIMEOUT:?}", self.name),
        }
    }

    async fn exchange(&mut self, command: &str, mut request: Value) -> Result<Value> {
        self.next_id += 1;
        request["id"] = json!(self.next_id);
        request["command"] = json!(command);
        self.stdin
            .write_all(format!("{request}\n").as_bytes())
            .await?;
        self.stdin.flush().await?;
        while let Some(line) = self.answers.next_line().await? {
            // The stock client logs some of its trouble to stdout, too.
            let Ok(Answer { id, result, error }) = serde_json::from_str(&line) else {
                self.note(&line);
                continue;
            };
            ensure!(
                id == self.next_id,
                "{}: an answer to {id}, asked {}",
                self.name,
                self.next_id
            );
            if let Some(error) = error {
                bail!("{} {command}: {error}", self.name);
            }
            return Ok(result);
        }
        bail!(
            "{} {command}: the client ended; it wrote:\n{}",
            self.name,
            self.log()
        );
    }

    /// Waits for the first answered handshake.
    pub async fn server(&mut self) -> Result<Server> {
        self.server_after(1).await
    }

    /// Waits until `handshakes` were answered in all, and says by whom the last one.
    pub async fn server_after(&mut self, handshakes: u64) -> Result<Server> {
        parse(self.call("server", json!({ "count": handshakes })).await?)
    }

    /// How many handshakes were answered so far: one, if the connection was never lost.
    pub async fn handshakes(&mut self) -> Result<u64> {
        parse(self.call("handshakes", json!({})).await?)
    }

    /// How often the connection ended so far, by whomever.
    pub async fn disconnections(&mut self) -> Result<u64> {
        parse(self.call("disconnections", json!({})).await?)
    }

    /// Closes the socket and does not reconnect.
    pub async fn offline(&mut self) -> Result<()> {
        self.call("offline", json!({})).await.map(drop)
    }

    /// Connects, again or for the first time.
    pub async fn online(&mut self) -> Result<()> {
        self.call("online", json!({})).await.map(drop)
    }

    /// Creates a document with this content and returns its URL.
    pub async fn create(&mut self, value: Value) -> Result<String> {
        text(
            &self.call("create", json!({ "value": value })).await?,
            "url",
        )
    }

    /// Looks for a document.
    pub async fn find(&mut self, url: &str) -> Result<Found> {
        let found = self.call("find", json!({ "url": url })).await?;
        parse(found["state"].clone())
    }

    /// Looks for a document that must be there.
    pub async fn open(&mut self, url: &str) -> Result<View> {
        let found = self.find(url).await?;
        ensure!(found == Found::Ready, "{}: {url} is {found:?}", self.name);
        self.view(url).await
    }

    /// Waits for a document that was unavailable when it was looked for.
    pub async fn wait_ready(&mut self, url: &str) -> Result<()> {
        self.call("ready", json!({ "url": url })).await.map(drop)
    }

    /// Applies `ops` (an array, see `ops.mjs`) as one change; returns the new heads.
    pub async fn change(&mut self, url: &str, ops: Value) -> Result<Vec<String>> {
        let changed = self
            .call("change", json!({ "url": url, "ops": ops }))
            .await?;
        parse(changed["heads"].clone())
    }

    /// Types at the end of a text, one change for each character, `pause` after each.
    pub async fn type_text(
        &mut self,
        url: &str,
        path: Value,
        typed: &str,
        pause: Duration,
    ) -> Result<()> {
        let pause = u64::try_from(pause.as_millis())?;
        self.call(
            "type",
            json!({ "url": url, "path": path, "text": typed, "pauseMs": pause }),
        )
        .await
        .map(drop)
    }

    /// The document as the client has it now.
    pub async fn view(&mut self, url: &str) -> Result<View> {
        parse(self.call("get", json!({ "url": url })).await?)
    }

    /// The value at `path`.
    pub async fn value(&mut self, url: &str, path: Value) -> Result<Value> {
        self.call("value", json!({ "url": url, "path": path }))
            .await
    }

    /// All of the document.
    pub async fn dump(&mut self, url: &str) -> Result<Dump> {
        parse(self.call("dump", json!({ "url": url })).await?)
    }

    /// The marks of a text: `[{name, value, start, end}]`, in UTF-16 units.
    pub async fn marks(&mut self, url: &str, path: Value) -> Result<Value> {
        self.call("marks", json!({ "url": url, "path": path }))
            .await
    }

    /// Which of the changes with these hashes the client has.
    pub async fn has(&mut self, url: &str, hashes: &[String]) -> Result<Vec<String>> {
        parse(
            self.call("has", json!({ "url": url, "hashes": hashes }))
                .await?,
        )
    }

    /// Waits until the document has exactly these heads.
    pub async fn wait_heads(&mut self, url: &str, heads: &[String]) -> Result<()> {
        self.call("waitHeads", json!({ "url": url, "heads": heads }))
            .await
            .map(drop)
    }

    /// Waits until there is this value at `path`.
    pub async fn wait_value(&mut self, url: &str, path: Value, value: Value) -> Result<()> {
        let request = json!({ "url": url, "path": path, "value": value });
        self.call("waitValue", request).await.map(drop)
    }

    /// Waits until the document holds at least `count` changes.
    pub async fn wait_changes(&mut self, url: &str, count: u64) -> Result<()> {
        self.call("waitChanges", json!({ "url": url, "count": count }))
            .await
            .map(drop)
    }

    /// The heads that the server last said it has.
    pub async fn acknowledged(&mut self, url: &str) -> Result<Vec<String>> {
        parse(self.call("acknowledged", json!({ "url": url })).await?)
    }

    /// Waits until the server has said that it has exactly what this client has; returns the heads.
    pub async fn wait_acknowledged(&mut self, url: &str) -> Result<Vec<String>> {
        parse(self.call("waitAcknowledged", json!({ "url": url })).await?)
    }

    /// Waits until the client was told that this storage has exactly these heads of the document.
    pub async fn wait_remote_heads(
        &mut self,
        url: &str,
        storage: &str,
        heads: &[String],
    ) -> Result<()> {
        let request = json!({ "url": url, "storageId": storage, "heads": heads });
        self.call("waitRemoteHeads", request).await.map(drop)
    }

    /// Sends an ephemeral message to the others who have the document open.
    pub async fn broadcast(&mut self, url: &str, message: Value) -> Result<()> {
        self.call("broadcast", json!({ "url": url, "message": message }))
            .await
            .map(drop)
    }

    /// The ephemeral messages received, once there are `count`: `(author's peer id, message)`.
    pub async fn ephemeral(&mut self, url: &str, count: usize) -> Result<Vec<(String, Value)>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Received {
            sender_id: String,
            message: Value,
        }
        let received: Vec<Received> = parse(
            self.call("ephemeral", json!({ "url": url, "count": count }))
                .await?,
        )?;
        Ok(received
            .into_iter()
            .map(|one| (one.sender_id, one.message))
            .collect())
    }

    /// Writes documents and sync states to the storage directory.
    pub async fn flush(&mut self) -> Result<()> {
        self.call("flush", json!({})).await.map(drop)
    }

    /// Ends the process in good order.
    pub async fn quit(mut self) -> Result<()> {
        self.call("quit", json!({})).await?;
        let status = self.child.wait().await?;
        ensure!(
            status.success(),
            "{} ended with {status}:\n{}",
            self.name,
            self.log()
        );
        Ok(())
    }

    /// What the client has logged.
    pub fn log(&self) -> String {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    fn note(&self, line: &str) {
        if let Ok(mut log) = self.log.lock() {
            log.push_str(line);
            log.push('\n');
        }
    }
}

impl Drop for NodeClient {
    fn drop(&mut self) {
        // As for the server: shown only if the test failed.
        let log = self.log();
        if !log.is_empty() {
            eprintln!("--- what client {} wrote ---\n{log}---", self.name);
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    #[serde(default)]
    result: Value,
    error: Option<String>,
}

fn text(value: &Value, field: &str) -> Result<String> {
    value
        .get(field)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .with_context(|| format!("no text {field} in {value}"))
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    let shown = value.to_string();
    serde_json::from_value(value).with_context(|| format!("unexpected {shown}"))
}
