//! Whether content is on the disk.

use std::path::Path;
use std::{fs, io};

use anyhow::{Context as _, Result};
use automerge::ActorId;

/// Random bytes, which nothing else has, and nothing compresses.
pub fn needle() -> Vec<u8> {
    let actors = (0..4).map(|_| ActorId::random());
    actors.flat_map(|actor| actor.to_bytes().to_vec()).collect()
}

/// Whether any file below a directory has these bytes.
pub fn is_found(directory: &Path, needle: &[u8]) -> Result<bool> {
    is_below(directory, needle).with_context(|| format!("searching {}", directory.display()))
}

fn is_below(directory: &Path, needle: &[u8]) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let found = fs::metadata(&path).and_then(|found| {
            if found.is_dir() {
                return is_below(&path, needle);
            }
            let bytes = fs::read(&path)?;
            Ok(bytes.windows(needle.len()).any(|window| window == needle))
        });
        match found {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            // A server that runs removes files at any time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
