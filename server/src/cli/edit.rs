//! `concord create`, `set`, `unset` and `patch`: each is one change that merges.

use std::fs;
use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use axum::http::{Method, header};
use concord_shared::ids::DocumentId;
use concord_shared::json::MOST_LEVELS;
use concord_shared::path::Path;
use serde_json::Value as Json;

use super::client::{Access, Answer, Call, TargetArgs, UsageError, document_id, path};
use super::documents::TypesArg;
use super::terminal::Out;
use crate::http::body::{self, Size};
use crate::http::documents::url_of;

/// What most who see the error wanted.
const TEXT_HINT: &str = "; --string takes a text without quotes";

/// What values are sent as.
pub const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

/// Arguments of `concord create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// What is in it, a JSON object; @FILE reads a file, - standard input
    #[arg(value_name = "JSON", default_value = "{}")]
    value: String,
    /// Its id; a new one if none is given
    #[arg(long, value_name = "ID", value_parser = document_id)]
    id: Option<DocumentId>,
    /// How counters, times and bytes are written, which JSON lacks
    #[arg(long, value_enum, default_value = "plain")]
    types: TypesArg,
}

/// Makes a document, and prints its id.
pub fn create(args: &CreateArgs) -> anyhow::Result<ExitCode> {
    let value = json_of(&args.value, "")?;
    args.target.run(Access::Create, async |client| {
        let call = match &args.id {
            Some(id) => Call::new(Method::PUT, url_of(id)).header(header::IF_NONE_MATCH, "*"),
            None => Call::new(Method::POST, "/v1/documents"),
        };
        let call = call
            .query("types", args.types.parameter())
            .json(JSON, &value);
        let answer = client.send(call).await?;
        // Where the same document was there already, it is the one that was named.
        let id = match &args.id {
            Some(id) => id.clone(),
            None => answer.made()?,
        };
        say(id.as_str())
    })
}

/// Where a command writes, and on top of what.
#[derive(Debug, clap::Args)]
pub struct WriteArgs {
    /// The server, or the directory.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    pub document: DocumentId,
    /// The version that you saw: what came since is merged. Without it this is about now
    #[arg(long, value_name = "VERSION")]
    pub if_match: Option<String>,
}

/// Arguments of `concord set`.
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Where, as a JSON Pointer: /companies/acme/name. The last step may be a new key
    #[arg(value_name = "PATH", value_parser = path)]
    path: Path,
    /// What is to be there; @FILE reads a file, - standard input
    #[arg(
        value_name = "JSON",
        allow_negative_numbers = true,
        required_unless_present = "string"
    )]
    value: Option<String>,
    /// A text, without the quotes that JSON wants
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "value",
        allow_hyphen_values = true
    )]
    string: Option<String>,
    /// How counters, times and bytes are written, which JSON lacks
    #[arg(long, value_enum, default_value = "plain")]
    types: TypesArg,
}

/// Brings what is at a path to a value, by a change that says only what differs. Prints the version that has it, unless that has more.
pub fn set(args: &SetArgs) -> anyhow::Result<ExitCode> {
    let value = match (&args.string, &args.value) {
        (Some(text), _) => Json::String(text.clone()),
        (None, value) => json_of(value.as_deref().unwrap_or_default(), TEXT_HINT)?,
    };
    args.write.send(Method::PUT, &args.path, |call| {
        call.query("types", args.types.parameter())
            .json(JSON, &value)
            .minimal()
    })
}

/// Arguments of `concord unset`.
#[derive(Debug, clap::Args)]
pub struct UnsetArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Where, as a JSON Pointer: /companies/acme
    #[arg(value_name = "PATH", value_parser = path)]
    path: Path,
}

/// Removes what is at a path. Prints the version without it, if `--if-match` names the one that was there.
pub fn unset(args: &UnsetArgs) -> anyhow::Result<ExitCode> {
    args.write.send(Method::DELETE, &args.path, |call| call)
}

/// Arguments of `concord patch`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "concord patch [OPTIONS] <ID> [PATH] <PATCH>")]
pub struct PatchArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Where the patch begins, as a JSON Pointer; the whole document if it is left out
    #[arg(value_name = "PATH")]
    first: String,
    /// An array is a JSON Patch, anything else a merge patch; @FILE reads a file, - standard input
    #[arg(value_name = "PATCH")]
    second: Option<String>,
    /// It is a merge patch (RFC 7396): what it has is set, what is null in it is removed
    #[arg(long, conflicts_with = "json_patch")]
    merge: bool,
    /// It is a JSON Patch (RFC 6902): operations, of which all are carried out or none
    #[arg(long)]
    json_patch: bool,
    /// How counters, times and bytes are written, which JSON lacks
    #[arg(long, value_enum, default_value = "plain")]
    types: TypesArg,
}

/// Carries out a patch. Prints the version that has it, unless that has more.
pub fn patch(args: &PatchArgs) -> anyhow::Result<ExitCode> {
    let (path, patch) = match &args.second {
        Some(patch) => {
            let path = Path::parse(&args.first);
            (path.map_err(|error| UsageError(error.to_string()))?, patch)
        }
        None => (Path::root(), &args.first),
    };
    let patch = json_of(patch, "")?;
    let is_json_patch = args.json_patch || (patch.is_array() && !args.merge);
    let kind = if is_json_patch {
        JSON_PATCH
    } else {
        MERGE_PATCH
    };
    args.write.send(Method::PATCH, &path, |call| {
        call.query("types", args.types.parameter())
            .json(kind, &patch)
    })
}

impl WriteArgs {
    fn send(
        &self,
        method: Method,
        path: &Path,
        with: impl FnOnce(Call) -> Call,
    ) -> anyhow::Result<ExitCode> {
        // Who names no version and is shown nothing knows none.
        let is_silent = method == Method::DELETE && self.if_match.is_none();
        self.target.run(Access::Write, async |client| {
            let call =
                with(Call::value(method, &self.document, path)).if_match(self.if_match.as_deref());
            let answer = client.send(call).await?;
            if is_silent {
                answer.must_be_empty()?;
                return Ok(ExitCode::SUCCESS);
            }
            say_version(&answer)
        })
    }
}

/// Prints the version that a write made, where it is one that its author knows: who took another for what they saw would
/// undo the rest by their next write.
pub fn say_version(answer: &Answer) -> anyhow::Result<ExitCode> {
    if let Some(version) = answer.version() {
        return say(&version);
    }
    answer.must_be_empty()?;
    eprintln!("concord: written, and merged with changes that you have not seen");
    Ok(ExitCode::SUCCESS)
}

/// Prints one word for the next command.
pub fn say(word: &str) -> anyhow::Result<ExitCode> {
    let mut out = Out::lock();
    out.raw(word)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// JSON that was typed, or of what it names.
pub fn json_of(argument: &str, hint: &str) -> anyhow::Result<Json> {
    let read;
    let (text, what) = if argument == "-" {
        let mut input = String::new();
        let reading = std::io::stdin().lock().read_to_string(&mut input);
        reading.context("reading standard input")?;
        read = input;
        (read.as_str(), "standard input".to_owned())
    } else if let Some(file) = argument.strip_prefix('@') {
        read = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
        (read.as_str(), file.to_owned())
    } else {
        (argument, format!("{argument:?}"))
    };
    let levels = Size::of(text.as_bytes()).levels;
    if levels > MOST_LEVELS {
        let detail = format!("{what} has {levels} levels, and a document at most {MOST_LEVELS}");
        return Err(UsageError(detail).into());
    }
    let parsed = body::parse(text.as_bytes());
    parsed.map_err(|error| UsageError(format!("{what} is not JSON: {error}{hint}")).into())
}
