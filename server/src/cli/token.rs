//! `concord token`: keys and tokens of one's own.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use concord_shared::access::Role;
use concord_shared::ids::{DocumentId, PrincipalId};
use serde_json::{Map, Value as Json};

use super::client::UsageError;
use crate::access::signing::{NewKey, SigningAlgorithm, sign};
use crate::access::token::{MOST_CLAIMED, MOST_GROUPS};
use crate::clock::unix_ms;

/// Of a private key, a public one and a secret, in the directory that was named.
const PRIVATE_FILE: &str = "concord-private.pem";
const PUBLIC_FILE: &str = "concord-public.pem";
const SECRET_FILE: &str = "concord-secret.json";

/// A hundred years: no token is for longer.
const MOST_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;

/// No key has more bytes.
const MOST_KEY_BYTES: u64 = 64 << 10;

/// Arguments of `concord token`.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key: one file for whoever makes tokens, and one for servers (--auth-keys).
    Keys(KeysArgs),
    /// Make a token, and print it.
    Make(MakeArgs),
}

#[derive(Debug, clap::Args)]
struct KeysArgs {
    /// How tokens are to be signed; with HS256 both sides have the same secret
    #[arg(long, value_name = "ALGORITHM", default_value = "EdDSA")]
    algorithm: SigningAlgorithm,
    /// Directory for the files, which must not be there yet
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct MakeArgs {
    /// Who is to be known by it (`sub`)
    #[arg(value_name = "PRINCIPAL", value_parser = PrincipalId::new)]
    principal: PrincipalId,
    /// File with the private key or the secret
    #[arg(long, value_name = "FILE", default_value = PRIVATE_FILE)]
    key: PathBuf,
    /// For how long: 90s, 15m, 8h, 30d
    #[arg(long, value_name = "TIME", default_value = "8h", value_parser = period)]
    expires: Duration,
    /// Group that the principal is in (`groups`) [repeatable]
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Role in one document, or in those whose ids begin so (PREFIX*): the token then allows nothing else (`grants`)
    /// [repeatable]
    #[arg(long, value_name = "DOCUMENT|PREFIX*=ROLE", value_parser = grant)]
    grant: Vec<(String, Role)>,
    /// Who makes it (`iss`)
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// For whom (`aud`)
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
}

/// Makes what is asked for.
pub fn run(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Keys(args) => keys(args)?,
        Command::Make(args) => make(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn keys(args: &KeysArgs) -> anyhow::Result<()> {
    let key = NewKey::generate(args.algorithm)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let mut out = std::io::stdout().lock();
    if let Some(public) = &key.public {
        let (private, for_servers) = (args.out.join(PRIVATE_FILE), args.out.join(PUBLIC_FILE));
        // Not one without the other.
        if for_servers.try_exists()? {
            bail!("{} is there already", for_servers.display());
        }
        write(&private, &key.private, true)?;
        write(&for_servers, public, false)?;
        writeln!(out, "{}: makes tokens; keep it secret", private.display())?;
        writeln!(out, "{}: for servers (--auth-keys)", for_servers.display())?;
    } else {
        let secret = args.out.join(SECRET_FILE);
        write(&secret, &key.private, true)?;
        writeln!(
            out,
            "{}: makes tokens, and is for servers (--auth-keys); keep it secret",
            secret.display()
        )?;
    }
    Ok(())
}

/// A file that was not there: tokens could be signed with the one that was.
fn write(path: &Path, text: &str, is_secret: bool) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if is_secret {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _can_not_be_said_there = is_secret;
    let mut file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} is there already", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("making {}", path.display())),
    };
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.with_context(|| format!("writing {}", path.display()))
}

fn make(args: &MakeArgs) -> anyhow::Result<()> {
    let reading = || format!("reading the key {}", args.key.display());
    let file = std::fs::File::open(&args.key).with_context(reading)?;
    let mut key = String::new();
    file.take(MOST_KEY_BYTES)
        .read_to_string(&mut key)
        .with_context(reading)?;
    // What no server would take.
    if args.principal == PrincipalId::anonymous() || args.group.len() > MOST_GROUPS {
        let error = format!("nobody is anonymous by name, or in more than {MOST_GROUPS} groups");
        return Err(UsageError(error).into());
    }
    let grants: BTreeMap<_, _> = args.grant.iter().map(|(of, role)| (of, role)).collect();
    if grants.len() < args.grant.len() || grants.len() > MOST_CLAIMED {
        let error = format!("--grant names each document once, and {MOST_CLAIMED} at most");
        return Err(UsageError(error).into());
    }
    let now_s = unix_ms() / 1000;
    let mut claims = Map::new();
    let mut claim = |name: &str, value: Json| claims.insert(name.to_owned(), value);
    claim("sub", args.principal.as_str().into());
    claim("iat", now_s.into());
    claim("exp", now_s.saturating_add(args.expires.as_secs()).into());
    if !args.group.is_empty() {
        claim("groups", args.group.clone().into());
    }
    if !grants.is_empty() {
        claim("grants", serde_json::to_value(&grants)?);
    }
    if let Some(issuer) = &args.issuer {
        claim("iss", issuer.clone().into());
    }
    if let Some(audience) = &args.audience {
        claim("aud", audience.clone().into());
    }
    let token = sign(&key, &claims).with_context(|| args.key.display().to_string())?;
    writeln!(std::io::stdout(), "{token}")?;
    Ok(())
}

fn grant(text: &str) -> Result<(String, Role), UsageError> {
    let bad = || {
        let error = format!(
            "{text:?} is no DOCUMENT=ROLE or PREFIX*=ROLE, with none, reader, writer or owner for the role"
        );
        UsageError(error)
    };
    let (of, role) = text.rsplit_once('=').ok_or_else(bad)?;
    let role = role.parse().map_err(|_| bad())?;
    // As other commands take it. All documents are a beginning of none.
    let of = match of {
        "*" => of.to_owned(),
        _ => match of.strip_suffix('*') {
            Some(prefix) => {
                let prefix = DocumentId::new(prefix).map_err(|_| bad())?;
                format!("{prefix}*")
            }
            None => DocumentId::parse_url(of).map_err(|_| bad())?.to_string(),
        },
    };
    Ok((of, role))
}

/// A time with its unit.
pub fn period(text: &str) -> Result<Duration, UsageError> {
    let bad = || UsageError(format!("{text:?} is no time such as 90s, 15m, 8h or 30d"));
    let unit = text.chars().next_back().ok_or_else(bad)?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(bad()),
    };
    let period = number
        .checked_mul(seconds)
        .filter(|all| *all <= MOST_SECONDS);
    period.map(Duration::from_secs).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_of_a_document_or_of_a_beginning() {
        for (text, of, role) in [
            (
                "4NMNnkMhL8jXrdJ9jamS58PAVdXu=writer",
                "4NMNnkMhL8jXrdJ9jamS58PAVdXu",
                Role::Writer,
            ),
            (
                "automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu=none",
                "4NMNnkMhL8jXrdJ9jamS58PAVdXu",
                Role::None,
            ),
            ("team-7-*=reader", "team-7-*", Role::Reader),
            ("a=b*=owner", "a=b*", Role::Owner),
            ("*=owner", "*", Role::Owner),
        ] {
            assert_eq!(grant(text).ok(), Some((of.to_owned(), role)), "{text}");
        }
        for bad in ["", "=reader", "d", "d=", "d=king", "d=Reader", "\n*=reader"] {
            assert!(grant(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn periods_have_a_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("8h", 28_800),
            ("30d", 2_592_000),
        ] {
            assert_eq!(period(text).ok(), Some(Duration::from_secs(seconds)));
        }
        for bad in [
            "",
            "8",
            "h",
            "8 h",
            "-1h",
            "1.5h",
            "8ü",
            "18446744073709551615d",
        ] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }
}
