//! Files that sled writes beside its log, and does not sync.

use std::{fs::File, io, path::PathBuf};

/// Makes sled's blob files durable.
///
/// Values are cut so that there are none; should a leaf still grow past sled's limit, an acknowledged change
/// would lie in a file that nobody synced. Looking costs microseconds beside a sync.
#[derive(Debug)]
pub(super) struct Blobs {
    directory: PathBuf,
    /// sled names these files by its ever-growing log position; those up to this one are durable.
    synced: Option<i64>,
}

impl Blobs {
    /// For sled's folder of blobs.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            synced: None,
        }
    }

    /// Syncs the files that came since the last call.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let mut newest = self.synced;
        let mut any = false;
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(position) = name.to_str().and_then(|name| name.parse::<i64>().ok()) else {
                continue;
            };
            if Some(position) <= self.synced {
                continue;
            }
            match File::open(entry.path()) {
                Ok(file) => file.sync_data()?,
                // sled removes what a later version replaced.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            any = true;
            newest = newest.max(Some(position));
        }
        if any {
            super::sync_directory(&self.directory)?;
        }
        self.synced = newest;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_are_synced_once_and_others_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut blobs = Blobs::new(folder.path().to_owned());
        blobs.sync().unwrap();
        assert_eq!(blobs.synced, None);
        for name in ["12", "7", "notes"] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        blobs.sync().unwrap();
        assert_eq!(blobs.synced, Some(12));
        std::fs::write(folder.path().join("13"), b"x").unwrap();
        blobs.sync().unwrap();
        assert_eq!(blobs.synced, Some(13));
    }
}
