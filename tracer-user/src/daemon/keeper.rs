//! Writes the state now and then, on a thread where that may block, one write at a time.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tracer_core::state::State;

use super::state::StateDir;

/// Who writes the state, if a directory is given for it.
#[derive(Debug)]
pub struct Keeper {
    dir: Arc<StateDir>,
    boot_id: String,
    writing: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Takes the directory; `None` without one.
    pub fn start(dir: Option<&Path>, boot_id: &str) -> anyhow::Result<Option<Self>> {
        let Some(dir) = dir else { return Ok(None) };
        let dir = Arc::new(StateDir::open(dir)?);
        Ok(Some(Self { dir, boot_id: boot_id.to_owned(), writing: None }))
    }

    /// What was left by the daemon before.
    #[must_use]
    pub fn left(&self) -> Option<State> {
        self.dir.read(&self.boot_id)
    }

    /// The boot that states are of.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Whether the last write is done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.writing.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Makes bytes of it and writes them, in the background.
    pub fn write(&mut self, state: State) {
        let dir = Arc::clone(&self.dir);
        self.writing = Some(tokio::task::spawn_blocking(move || save(&dir, state)));
    }

    /// Writes it and waits: nothing comes after this.
    pub async fn write_last(self, state: State) {
        if let Some(writing) = self.writing {
            // Whether it failed was told.
            let _ = writing.await;
        }
        let _ = tokio::task::spawn_blocking(move || save(&self.dir, state)).await;
    }
}

fn save(dir: &StateDir, state: State) {
    let encoded = state.encode();
    // The tracker copies whatever it changes of it as long as it is there.
    drop(state);
    let bytes = match encoded {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "the state cannot be written as bytes");
            return;
        }
    };
    if let Err(error) = dir.write(&bytes) {
        tracing::warn!(%error, "cannot write the state: a restart now would begin without it");
    }
}
