//! TEMP committer.
use super::{Durability, Store, Write};
use concord_shared::ids::DocumentId;
use std::sync::Arc;
use tokio::sync::mpsc;

#[derive(Debug, Clone, thiserror::Error)]
#[error("write failed: {0}")]
pub struct WriteFailed(pub String);

type Item = (Write, mpsc::Sender<Result<(), WriteFailed>>);
#[derive(Debug, Clone)]
pub struct Committer {
    tx: mpsc::Sender<Option<Item>>,
}
#[derive(Debug)]
pub struct Writer {
    tx: mpsc::Sender<Option<Item>>,
    done_tx: mpsc::Sender<Result<(), WriteFailed>>,
    done: mpsc::Receiver<Result<(), WriteFailed>>,
}

impl Committer {
    pub fn start(store: Arc<dyn Store>, durability: Durability) -> anyhow::Result<Self> {
        let (tx, mut rx) = mpsc::channel::<Option<Item>>(1024);
        std::thread::spawn(move || {
            let mut stop = false;
            while !stop {
                let Some(first) = rx.blocking_recv() else {
                    return;
                };
                let mut batch = Vec::new();
                let mut next = Some(first);
                while let Some(item) = next {
                    match item {
                        Some(i) => batch.push(i),
                        None => {
                            stop = true;
                            break;
                        }
                    }
                    next = if batch.len() < 1000 {
                        rx.try_recv().ok()
                    } else {
                        None
                    };
                }
                let (writes, dones): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
                let r = store
                    .commit(&writes, durability)
                    .map_err(|e| WriteFailed(e.to_string()));
                for d in dones {
                    let _ = d.try_send(r.clone());
                }
            }
        });
        Ok(Self { tx })
    }
    pub fn writer(&self, _d: &DocumentId) -> Result<Writer, WriteFailed> {
        let (done_tx, done) = mpsc::channel(1024);
        Ok(Writer {
            tx: self.tx.clone(),
            done_tx,
            done,
        })
    }
    pub fn is_poisoned(&self) -> bool {
        false
    }
    pub fn stop(&self) -> anyhow::Result<()> {
        let _ = self.tx.blocking_send(None);
        Ok(())
    }
}
impl Writer {
    pub async fn submit(&mut self, write: Write) -> Result<(), WriteFailed> {
        self.tx
            .send(Some((write, self.done_tx.clone())))
            .await
            .map_err(|_| WriteFailed("gone".into()))
    }
    pub async fn committed(&mut self) -> Result<(), WriteFailed> {
        self.done
            .recv()
            .await
            .unwrap_or(Err(WriteFailed("gone".into())))
    }
}
