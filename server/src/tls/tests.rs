use std::fs;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

/// PEM: a certificate of its own for `localhost`, and its key.
fn made() -> (String, String) {
    made_until(4000)
}

/// One that ends with a year.
fn made_until(year: i32) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(year, 12, 31);
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

struct World {
    directory: TempDir,
    files: Files,
}

impl World {
    fn new(certificate: &str, key: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files {
            certificate: directory.path().join("chain.pem"),
            key: directory.path().join("key.pem"),
        };
        let world = Self { directory, files };
        world.write(certificate, key);
        world
    }

    fn write(&self, certificate: &str, key: &str) {
        fs::write(&self.files.certificate, certificate).expect("written");
        fs::write(&self.files.key, key).expect("written");
    }

    fn refused(&self) -> String {
        let error = Tls::open(self.files.clone()).expect_err("can't be used");
        let place = self.directory.path().display().to_string();
        error.to_string().replace(&format!("{place}/"), "")
    }
}

fn shown(tls: &Tls) -> Vec<u8> {
    let shown = tls.shown.0.read().expect("nobody panicked");
    shown.cert.first().expect("a certificate").to_vec()
}

#[test]
fn files_that_are_no_pair_are_refused_by_name() {
    let (certificate, key) = made();
    let (other, _) = made();
    let damaged = certificate.replacen("MII", "AAA", 1);
    let cut = &certificate[..certificate.len() - 40];
    let large = "#".repeat(pair::MOST_PEM_BYTES + 1);
    let world = World::new(&certificate, &key);
    Tls::open(world.files.clone()).expect("a pair");
    // With what else may be in such files.
    world.write(
        &format!("text\n{certificate}{other}"),
        &format!("{certificate}{key}"),
    );
    Tls::open(world.files.clone()).expect("a pair");
    for (certificate, key, expected) in [
        ("", &*key, "no certificate is in chain.pem"),
        (&*key, &*key, "no certificate is in chain.pem"),
        (&*certificate, "", "no private key is in key.pem"),
        (&*certificate, &*certificate, "no private key is in key.pem"),
        (
            &*other,
            &*key,
            "the private key in key.pem is not that of the first certificate in chain.pem",
        ),
        (
            &*damaged,
            &*key,
            "the first certificate in chain.pem can't be used",
        ),
        (cut, &*key, "chain.pem is no PEM file"),
        (&*large, &*key, "chain.pem has more than 256 KiB"),
        (
            &*certificate,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "the private key in key.pem can't be used",
        ),
    ] {
        world.write(certificate, key);
        let told = world.refused();
        assert!(told.contains(expected), "{expected:?}: {told}");
    }
    fs::remove_file(&world.files.key).expect("removed");
    world.write(&certificate, &key);
    fs::remove_file(&world.files.key).expect("removed");
    let told = world.refused();
    assert!(told.contains("key.pem can't be read"), "{told}");
}

#[test]
fn one_without_the_other_is_a_mistake() {
    let named = |certificate: Option<&str>, key: Option<&str>| Config {
        tls_cert: certificate.map(Into::into),
        tls_key: key.map(Into::into),
        ..Config::default()
    };
    assert!(Tls::of(&named(None, None)).expect("no TLS").is_none());
    for (config, missing) in [
        (named(Some("chain.pem"), None), "--tls-key is missing"),
        (named(None, Some("key.pem")), "--tls-cert is missing"),
    ] {
        let error = Tls::of(&config).expect_err("one of two").to_string();
        assert!(error.contains(missing), "{error}");
    }
}

#[test]
fn what_is_new_is_shown_if_it_can_be_used() {
    let (certificate, key) = made();
    let world = World::new(&certificate, &key);
    let tls = Tls::open(world.files.clone()).expect("a pair");
    let mut watch = Watch::new(&tls);
    let first = shown(&tls);
    let mut looked = |certificate: &str, key: &str| {
        world.write(certificate, key);
        watch.look();
        (shown(&tls), watch.wrong.clone())
    };
    assert_eq!(looked(&certificate, &key), (first.clone(), None));
    // The first of two files was written.
    let (next, next_key) = made();
    let (same, wrong) = looked(&next, &key);
    assert_eq!(same, first);
    assert!(wrong.expect("something").contains("is not that of"));
    let (second, wrong) = looked(&next, &next_key);
    assert_ne!(second, first);
    assert_eq!(wrong, None);
    let (same, wrong) = looked("", "");
    assert_eq!(same, second);
    assert!(wrong.expect("something").contains("no certificate"));
    let (past, past_key) = made_until(2000);
    let (same, wrong) = looked(&past, &past_key);
    assert_eq!(same, second);
    assert!(wrong.expect("something").contains("has expired"));
    // Back to what is shown: nothing is wrong any more, and would be told anew.
    assert_eq!(looked(&next, &next_key), (second, None));
}

#[cfg(unix)]
#[test]
fn links_that_are_turned_are_followed() {
    let (certificate, key) = made();
    let world = World::new(&certificate, &key);
    let place = world.directory.path().join("live");
    let pair = |certificate: &str, key: &str, name: &str| {
        let directory = world.directory.path().join(name);
        fs::create_dir(&directory).expect("made");
        fs::write(directory.join("chain.pem"), certificate).expect("written");
        fs::write(directory.join("key.pem"), key).expect("written");
        directory
    };
    let turn = |to: &std::path::Path| {
        let _is_none = fs::remove_file(&place);
        std::os::unix::fs::symlink(to, &place).expect("linked");
    };
    turn(&pair(&certificate, &key, "1"));
    let files = Files {
        certificate: place.join("chain.pem"),
        key: place.join("key.pem"),
    };
    let tls = Tls::open(files).expect("a pair");
    let mut watch = Watch::new(&tls);
    let first = shown(&tls);
    let (next, next_key) = made();
    turn(&pair(&next, &next_key, "2"));
    watch.look();
    assert_ne!(shown(&tls), first);
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let (certificate, key) = made();
    let world = World::new(&certificate, &key);
    let tls = Tls::open(world.files.clone()).expect("a pair");
    let mut watch = Watch::new(&tls);
    let first = shown(&tls);
    fs::remove_file(&world.files.certificate).expect("removed");
    let mut pipe = std::process::Command::new("mkfifo");
    assert!(
        pipe.arg(&world.files.certificate)
            .status()
            .expect("mkfifo")
            .success()
    );
    watch.look();
    assert!(
        watch
            .wrong
            .clone()
            .expect("something")
            .contains("no plain file")
    );
    assert_eq!(shown(&tls), first);
    fs::remove_file(&world.files.certificate).expect("removed");
    let (next, next_key) = made();
    world.write(&next, &next_key);
    watch.look();
    assert_ne!(shown(&tls), first);
}
