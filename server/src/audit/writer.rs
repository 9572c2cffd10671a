//! The thread that writes the log.
//!
//! It takes all that waits at once and writes it with few calls, each of whole lines if the disk takes them. What fails is
//! tried again every [`RETRY`] from where it ended, so a disk that is full for a while loses nothing but what there is no
//! room for in the queue. Lines are in the file as soon as the thread has run, which is a moment after what they
//! tell; they are synced within [`SYNC_EVERY`], so a crash of the machine may lose the last ones, as a crash
//! of the process loses those of the moment. To have each of them on the disk before anything is answered would put a sync
//! on every read of a document.
//!
//! Rotation: whoever moves the file sends SIGHUP. The new file is opened, then all that was recorded until then is written
//! to the old one, and the new one begins by saying that the log goes on there. If there can be none, the old
//! one is kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{AuditError, Shared};

/// After so long a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// After so long what was counted is looked at, and what was written is synced.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// When the server stops the thread gets this long for what waits.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// What room for lines is kept between two batches.
const KEPT_BYTES: usize = 64 << 10;

/// Where lines go.
pub(super) trait Output: std::fmt::Debug + Send {
    /// Writes some of them.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize>;
    /// What was written outlasts a crash of the machine.
    fn sync(&mut self) -> io::Result<()>;
    /// The same place, as it is now: a file of the same name.
    fn anew(&self) -> Result<Box<dyn Output>, AuditError>;
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
}

#[derive(Debug)]
struct StandardOutput;

/// A file, which is made if it is not there, for its owner alone, and never cut.
pub(super) fn file(path: &Path) -> Result<Box<dyn Output>, AuditError> {
    let failed = |error| AuditError::Open {
        path: path.to_owned(),
        error,
    };
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let path = path.to_owned();
            return Err(AuditError::NoFile { path });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(failed)?;
    end_line(&mut file).map_err(failed)?;
    let path = path.to_owned();
    Ok(Box::new(LogFile { path, file }))
}

/// A process that died may have left half a line, to which nothing may be added.
fn end_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(())
}

pub(super) fn standard_output() -> Box<dyn Output> {
    Box::new(StandardOutput)
}

impl Output for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.file.write(lines)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn anew(&self) -> Result<Box<dyn Output>, AuditError> {
        file(&self.path)
    }
}

impl Output for StandardOutput {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut out = io::stdout().lock();
        let written = out.write(lines)?;
        out.flush()?;
        Ok(written)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn anew(&self) -> Result<Box<dyn Output>, AuditError> {
        Ok(standard_output())
    }
}

/// The thread, as whoever ends it has it.
#[derive(Debug)]
pub struct Writing {
    shared: Arc<Shared>,
    ended: oneshot::Receiver<()>,
}

impl Writing {
    pub(super) fn start(shared: Arc<Shared>, output: Box<dyn Output>) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let worker = Worker {
            shared: Arc::clone(&shared),
            output,
            batch: Vec::new(),
            written: 0,
            is_failing: false,
            synced: Instant::now(),
            is_dirty: false,
        };
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                worker.run();
                // Nobody may wait for it any more.
                let _told = end.send(());
            })?;
        Ok(Self { shared, ended })
    }

    /// Writes what waits and ends. What comes afterwards is lost.
    pub async fn finish(self) {
        self.shared.lock().is_closed = true;
        self.shared.wake.notify_one();
        if timeout(FINISH_TIMEOUT, self.ended).await.is_err() {
            warn!("the end of the audit log was not written in time");
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    output: Box<dyn Output>,
    /// Lines, and how many bytes of them are written.
    batch: Vec<u8>,
    written: usize,
    is_failing: bool,
    synced: Instant,
    is_dirty: bool,
}

impl Worker {
    fn run(mut self) {
        loop {
            let (is_closed, reopen) = self.take();
            self.write();
            if let Some(output) = reopen {
                self.sync();
                self.output = output;
                // What the old file did not take goes to the new one, from the beginning of its line.
                let sent = self.batch.get(..self.written).unwrap_or_default();
                let line = sent.iter().rposition(|byte| *byte == b'\n');
                self.written = line.map_or(0, |at| at + 1);
                continue;
            }
            if self.is_dirty && (is_closed || self.synced.elapsed() >= SYNC_EVERY) {
                self.sync();
            }
            if is_closed {
                let rest = self.batch.get(self.written..).unwrap_or_default();
                let lines = count(rest);
                if lines > 0 {
                    self.shared.counters.lost.increment(lines);
                    error!(lines, "the end of the audit log could not be written");
                }
                return;
            }
        }
    }

    /// Waits for something to do, and takes what waits. Whether that is the end, and the new file if there is one.
    fn take(&mut self) -> (bool, Option<Box<dyn Output>>) {
        let shared = Arc::clone(&self.shared);
        let (is_failing, pause) = if self.is_failing {
            (true, RETRY)
        } else {
            (false, SYNC_EVERY)
        };
        let waiting = shared
            .wake
            .wait_timeout_while(shared.lock(), pause, |state| {
                (is_failing || state.queue.is_empty()) && !state.reopen && !state.is_closed
            });
        let (mut state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        let mut reopen = None;
        if std::mem::take(&mut state.reopen) {
            // A disk may take its time.
            drop(state);
            match self.output.anew() {
                Ok(output) => reopen = Some(output),
                Err(error) => error!(%error, "the former file of the audit log is kept"),
            }
            state = shared.lock();
        }
        let is_closed = state.is_closed;
        shared.settle(&mut state, is_closed);
        if self.batch.is_empty() {
            std::mem::swap(&mut state.queue, &mut self.batch);
        } else if reopen.is_some() || is_closed {
            // Nothing waits behind what could not be written: there is one order.
            self.batch.append(&mut state.queue);
        }
        if reopen.is_some() {
            state.opened();
        }
        (is_closed, reopen)
    }

    fn write(&mut self) {
        while let Some(rest @ [_, ..]) = self.batch.get(self.written..) {
            match self.output.write(rest) {
                Ok(0) => return self.failed(&io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.failed(&error),
            }
            self.is_dirty = true;
        }
        if std::mem::take(&mut self.is_failing) {
            info!("the audit log is written again");
        }
        self.shared.counters.written.increment(count(&self.batch));
        self.batch.clear();
        self.batch.shrink_to(KEPT_BYTES);
        self.written = 0;
    }

    fn sync(&mut self) {
        self.is_dirty = false;
        self.synced = Instant::now();
        if let Err(error) = self.output.sync() {
            error!(%error, "the audit log can't be synced");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !self.is_failing {
            error!(%error, "the audit log can't be written");
        }
        self.is_failing = true;
    }
}

fn count(lines: &[u8]) -> u64 {
    let parts = lines.split(|byte| *byte == b'\n').count();
    parts as u64 - 1
}

#[cfg(test)]
mod tests;
