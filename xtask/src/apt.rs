//! Debian's packages: installed where we are root, or downloaded beside the system without being so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{captured, output, run};

const SOURCES_DIRECTORY: &str = "/etc/apt/sources.list.d";
const SOURCES_FILE: &str = "/etc/apt/sources.list";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Installs packages where we may: in a container, as root. False if we may not, or it fails.
pub(crate) fn install(packages: &[&str]) -> Result<bool> {
    let is_root = output("id", &["-u"]).is_some_and(|id| id == "0");
    if !is_root || output("apt-get", &["--version"]).is_none() {
        return Ok(false);
    }
    let mut update = Command::new("apt-get");
    let mut install = Command::new("apt-get");
    install
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    Ok(run("apt-get update", update.arg("update"))?
        && run(
            &format!("apt-get install {}", packages.join(" ")),
            &mut install,
        )?)
}

/// An apt with lists and a cache of its own, so that it needs no root and changes nothing on the system. It
/// reads the system's settings and which packages are installed.
pub(crate) struct PrivateApt {
    directory: PathBuf,
    options: Vec<String>,
}

impl PrivateApt {
    /// Fetches the lists of the running release and its security updates into `directory`, which is emptied.
    pub(crate) fn update(directory: PathBuf) -> Result<Self> {
        ensure!(
            output("apt-get", &["--version"]).is_some(),
            "there is no apt-get"
        );
        let mirrors = Mirrors::of_this_machine()?;
        let release = fs::read_to_string("/etc/os-release")?;
        let codename = codename(&release).context("/etc/os-release names no Debian release")?;
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let sources = directory.join("sources.list");
        let Mirrors { main, security } = mirrors;
        let lines = format!(
            "deb [signed-by={KEYRING}] {main} {codename} main\n\
             deb [signed-by={KEYRING}] {security} {codename}-security main\n"
        );
        fs::write(&sources, lines)?;
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", directory.join("lists").display()),
            format!("Dir::Cache={}", directory.join("cache").display()),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
            // As root, apt would download as a user that can't write here.
            "APT::Sandbox::User=root".to_owned(),
            // Nothing that the lock guards is written.
            "Debug::NoLocking=1".to_owned(),
        ];
        let apt = Self {
            directory,
            options: options.into(),
        };
        let mut update = apt.command("apt-get");
        if !run(
            "apt-get update, in a private directory",
            update.arg("update"),
        )? {
            bail!("apt-get update failed");
        }
        Ok(apt)
    }

    /// The versions of a package that are offered, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let madison = captured(self.command("apt-cache").args(["madison", package]))?;
        Ok(madison_versions(&madison))
    }

    /// What apt knows of one version of a package.
    pub(crate) fn show(&self, package: &str, version: &str) -> Result<String> {
        let package = format!("{package}={version}");
        captured(self.command("apt-cache").args(["show", &package]))
    }

    /// Downloads these packages (as `name` or `name=version`), installed or not, with what they depend on
    /// that this system lacks.
    pub(crate) fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let mut install = self.command("apt-get");
        install.args(["install", "--download-only", "--reinstall", "--yes"]);
        install.arg("--no-install-recommends").args(packages);
        if !run(&format!("downloading {}", packages.join(" ")), &mut install)? {
            bail!("apt-get could not download {}", packages.join(" "));
        }
        let mut archives = Vec::new();
        for entry in fs::read_dir(self.directory.join("cache/archives"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                archives.push(path);
            }
        }
        Ok(archives)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-qq");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// Where this machine gets Debian's packages from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        let mut files = vec![PathBuf::from(SOURCES_FILE)];
        if let Ok(entries) = fs::read_dir(SOURCES_DIRECTORY) {
            files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        files.sort();
        let uris = files.iter().flat_map(|file| source_uris(file)).collect();
        Self::pick(uris).context("apt's sources name no Debian mirror")
    }

    /// Known by their last part; the rest differs from mirror to mirror.
    fn pick(uris: Vec<String>) -> Option<Self> {
        let mut main = None;
        let mut security = None;
        for uri in uris {
            let uri = uri.trim_end_matches('/');
            if uri.ends_with("/debian") {
                main.get_or_insert_with(|| uri.to_owned());
            } else if uri.ends_with("/debian-security") {
                security.get_or_insert_with(|| uri.to_owned());
            }
        }
        let main = main?;
        let security = security.unwrap_or_else(|| format!("{main}-security"));
        Some(Self { main, security })
    }
}

/// Files with other endings are not apt's.
fn source_uris(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("sources") => deb822_uris(&text),
        Some("list") => one_line_uris(&text),
        _ => Vec::new(),
    }
}

/// `deb [options] uri suite component…`, a source a line (sources.list(5)).
fn one_line_uris(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let source = line.trim().strip_prefix("deb")?;
            let source = source.strip_prefix([' ', '\t'])?.trim_start();
            let source = match source.strip_prefix('[') {
                Some(options) => options.split_once(']')?.1,
                None => source,
            };
            source.split_whitespace().next().map(str::to_owned)
        })
        .collect()
}

/// Stanzas of `Field: values`, which may go on in indented lines (sources.list(5)).
fn deb822_uris(text: &str) -> Vec<String> {
    let mut uris = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let mut field = String::new();
        let mut found = Vec::new();
        let mut is_enabled = true;
        for line in stanza {
            let values = match line.split_once(':') {
                Some((name, values)) if !line.starts_with([' ', '\t']) => {
                    field = name.trim().to_ascii_lowercase();
                    values
                }
                _ => line,
            };
            match field.as_str() {
                "uris" => found.extend(values.split_whitespace().map(str::to_owned)),
                "enabled" if values.trim() == "no" => is_enabled = false,
                _ => {}
            }
        }
        if is_enabled {
            uris.extend(found);
        }
    }
    uris
}

/// The second column of `apt-cache madison`.
fn madison_versions(madison: &str) -> Vec<String> {
    madison
        .lines()
        .filter_map(|line| Some(line.split('|').nth(1)?.trim().to_owned()))
        .collect()
}

fn codename(os_release: &str) -> Option<&str> {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_in_one_line_form() {
        let text = "\
# deb http://commented.example/debian stable main
deb-src http://source.example/debian stable main
deb [signed-by=/a.gpg arch=amd64] https://other.example/apt any main
deb\t[ trusted=yes ] http://mirror.example/pub/debian/ stable main contrib
deb http://security.example/debian-security stable-security main
";
        let mirrors = Mirrors::pick(one_line_uris(text)).unwrap();
        assert_eq!(mirrors.main, "http://mirror.example/pub/debian");
        assert_eq!(mirrors.security, "http://security.example/debian-security");
    }

    #[test]
    fn mirrors_in_deb822_form() {
        let text = "\
Enabled: no
Types: deb
URIs: http://disabled.example/debian

Types: deb
# a comment
URIs: http://first.example/other
  http://mirror.example/debian
Suites: stable stable-updates

Types: deb
uris: http://mirror.example/debian-security/
Suites: stable-security
";
        let mirrors = Mirrors::pick(deb822_uris(text)).unwrap();
        assert_eq!(mirrors.main, "http://mirror.example/debian");
        assert_eq!(mirrors.security, "http://mirror.example/debian-security");
    }

    #[test]
    fn without_a_security_mirror_it_is_looked_for_beside_the_main_one() {
        let mirrors = Mirrors::pick(vec!["http://mirror.example/debian".to_owned()]).unwrap();
        assert_eq!(mirrors.security, "http://mirror.example/debian-security");
    }

    #[test]
    fn other_systems_have_no_debian_mirror() {
        let uris = one_line_uris("deb http://mirror.example/ubuntu noble main");
        assert_eq!(uris, ["http://mirror.example/ubuntu"]);
        assert_eq!(Mirrors::pick(uris), None);
    }

    #[test]
    fn versions_newest_first() {
        let madison = "\
 rustc-web | 1.96.0+dfsg1-1~deb12u2 | http://mirror.example/debian-security stable-security/main amd64 Packages
 rustc-web | 1.85.0+dfsg3-1~deb12u3 | http://mirror.example/debian stable/main amd64 Packages
";
        let versions = madison_versions(madison);
        assert_eq!(
            versions,
            ["1.96.0+dfsg1-1~deb12u2", "1.85.0+dfsg3-1~deb12u3"]
        );
        assert_eq!(madison_versions(""), Vec::<String>::new());
    }

    #[test]
    fn codename_of_a_release() {
        let text = "ID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(codename(text), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\""), Some("trixie"));
        assert_eq!(codename("ID=arch\n"), None);
    }
}
