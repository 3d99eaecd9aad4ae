//! Gets one wanted module and keeps it current: one task per [`ModuleRef`].
//!
//! Comes in: a reference. Goes out: its state, on the board. A failure keeps what was there, is logged and noted, and
//! tried again where that can help.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::error::FetchError;
use super::failure::{Failure, NextTry};
use super::folders::{Place, open_below};
use super::http;
use super::image::UnpackLimits;
use super::library::Checked;
use super::memory::Given;
use super::pace::Backoff;
use super::pull::is_asked_always;
use super::stats::FetchResult;
use super::watcher::look;
use super::{Room, Wanted};
use crate::model::{Code, Digest, HostPort, ModuleLocation, ModuleRef};

/// One reference, and the room it is kept in.
pub struct Keeper {
    pub room: Arc<Room>,
    pub reference: ModuleRef,
    /// What the image's reference meant when it was last pulled.
    pub pulled: Mutex<Option<Digest>>,
}

impl Keeper {
    pub fn new(room: &Arc<Room>, reference: &ModuleRef) -> Self {
        Self { room: Arc::clone(room), reference: reference.clone(), pulled: Mutex::default() }
    }

    /// Returns when nothing can change any more. Small, as there is one for each module, and nearly all of them wait: what
    /// takes room while it works is boxed.
    pub async fn keep(self) {
        match &self.reference.location {
            ModuleLocation::Http(url) => self.keep_remote(url).await,
            ModuleLocation::File(path) => {
                let (room, wanted) = (Arc::clone(&self.room), path.clone());
                match aside(move || Ok(room.folders.place(&wanted))).await {
                    Ok(Place::Proxy) => self.pass_through(path),
                    Ok(Place::Ours { folder }) => self.keep_file(&folder, path).await,
                    Err(error) => self.fail(&error, NextTry::WhenPluginChanges).await,
                }
            }
            ModuleLocation::Oci(reference) => self.keep_image(reference).await,
        }
    }

    fn pass_through(&self, path: &Path) {
        let warning = "on the proxy's own disk: not fetched, checked or watched by wasmplane".to_owned();
        self.room.board.ready(&self.reference, Code::OnProxy(path.to_owned()), Arc::from([warning]), None);
    }

    async fn keep_remote(&self, url: &str) {
        if !is_asked_always(&self.reference) && self.ready_from_store().await {
            self.count(FetchResult::Stored);
            return;
        }
        let mut backoff = Backoff::new(&self.room.pace);
        loop {
            let edit = self.edit();
            // Also where the bytes are not the pinned ones: a URL may give others tomorrow, as after a maintenance page.
            let Err(error) = self.patiently(Box::pin(self.fetch(url))).await else { return };
            let wait = self.wait(&error, &mut backoff);
            self.fail(&error, NextTry::after(wait)).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.edited(edit) => backoff = Backoff::new(&self.room.pace),
            }
        }
    }

    /// Before the next attempt: as long as back-off says, or as the server asks for.
    pub(super) fn wait(&self, error: &FetchError, backoff: &mut Backoff) -> Duration {
        let pace = &self.room.pace;
        let wait = if error.is_about_content() { pace.slowest_retry } else { backoff.next() };
        wait.max(error.retry_after().unwrap_or_default().min(pace.longest_obedience))
    }

    /// Of the last edit of a plugin that wants this module.
    pub(super) fn edit(&self) -> Option<u64> {
        self.room.wanted.borrow().get(&self.reference).map(|wish| wish.edit)
    }

    /// Returns when a plugin that wants this module was edited since.
    pub(super) async fn edited(&self, before: Option<u64>) {
        let mut wanted = self.room.wanted.subscribe();
        let is_later = |wanted: &Wanted| wanted.get(&self.reference).is_some_and(|wish| Some(wish.edit) > before);
        if wanted.wait_for(is_later).await.is_err() {
            // The room is gone.
            std::future::pending().await
        }
    }

    /// Uses what is stored from before while the server is slow to answer.
    pub(super) async fn patiently(
        &self,
        fetch: impl Future<Output = Result<(), FetchError>>,
    ) -> Result<(), FetchError> {
        let mut fetch = std::pin::pin!(fetch);
        // From before: what the fetch itself takes in is shown by it.
        let stored = self.room.library.memory.recall(&self.reference);
        let meanwhile = async {
            tokio::time::sleep(self.room.pace.patience).await;
            self.is_ready() || Box::pin(self.ready_as(stored)).await
        };
        // Both go on: what the store waits for, the fetch may be holding (`Library::desks`).
        tokio::select! {
            fetched = &mut fetch => fetched,
            _is_ready = meanwhile => fetch.await,
        }
    }

    async fn fetch(&self, url: &str) -> Result<(), FetchError> {
        let _slot = self.room.slots.take(&server(url)).await;
        let (spooled, batch) = http::get(&self.room.transport, &self.room.spools, url, &|_| {}).await?;
        let limits = UnpackLimits { module: self.room.limits.size, ..UnpackLimits::default() };
        let _room = batch.room(&self.room.spools, spooled.memory(&limits)).await;
        let body = spooled.read().await.map_err(|error| http::failed(url, error.to_string()))?;
        self.admit(body).await
    }

    async fn keep_file(&self, folder: &Path, path: &Path) {
        if self.is_pinned() && self.ready_from_store().await {
            self.count(FetchResult::Stored);
            return;
        }
        let follower = self.room.watcher.follow(path).await;
        loop {
            // Looked at before it is read: what changes meanwhile is seen as a change.
            let seen = look(path).await;
            if let Err(error) = Box::pin(self.read(folder, path)).await {
                self.fail(&error, NextTry::WhenFileChanges).await;
            }
            follower.changed(seen, &self.room.pace).await;
        }
    }

    async fn read(&self, folder: &Path, path: &Path) -> Result<(), FetchError> {
        let (folder, path, limit) = (folder.to_owned(), path.to_owned(), self.room.limits.size);
        let opened = aside(move || open_below(&folder, &path, limit)).await?;
        let limits = UnpackLimits { module: limit, ..UnpackLimits::default() };
        let _room = self.room.spools.room(opened.memory(&limits)).await;
        let bytes = aside(move || opened.read()).await?;
        self.admit(bytes).await
    }

    /// Verified, inspected, stored, remembered, and only then shown.
    async fn admit(&self, bytes: Bytes) -> Result<(), FetchError> {
        let checked = self.room.library.admit(&self.reference, bytes).await?;
        self.room.fetches.fetched(&self.reference.location, checked.module.bytes.len());
        self.ready(checked, None);
        Ok(())
    }

    /// `image`: what the reference named, where that is an image.
    pub(super) fn ready(&self, Checked { module, warnings }: Checked, image: Option<Digest>) {
        let (digest, bytes) = (module.digest, module.bytes.len());
        if self.room.board.ready(&self.reference, Code::Module(module), warnings.clone(), image) {
            let image = image.map(tracing::field::display);
            tracing::info!(module = %self.name(), image, %digest, bytes, ?warnings, "module ready");
        }
    }

    /// The pinned bytes, or what the location gave last time. False if they are not at hand.
    pub(super) async fn ready_from_store(&self) -> bool {
        Box::pin(self.ready_as(self.room.library.memory.recall(&self.reference))).await
    }

    async fn ready_as(&self, given: Option<Given>) -> bool {
        let Some(given) = given else { return false };
        let Some(checked) = self.room.library.load(&given).await else { return false };
        self.room.library.keep(&self.reference, given.clone()).await;
        let is_image = matches!(self.reference.location, ModuleLocation::Oci(_));
        self.ready(checked, given.served.filter(|_| is_image));
        true
    }

    pub(super) fn count(&self, result: FetchResult) {
        self.room.fetches.count(&self.reference.location, result);
    }

    pub(super) async fn fail(&self, error: &FetchError, next: NextTry) {
        self.room.fetches.failed(&self.reference.location, error);
        let serves_older = self.is_ready() || self.ready_from_store().await;
        tracing::warn!(module = %self.name(), %error, serves_older, "module not available");
        let reason = if error.names_source() { error.to_string() } else { format!("{}: {error}", self.name()) };
        self.room.board.fail(&self.reference, Failure::first(reason, next));
    }

    fn is_ready(&self) -> bool {
        self.room.board.is_ready(&self.reference)
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.reference.sha256.is_some()
    }

    /// For logs.
    pub(super) fn name(&self) -> String {
        self.reference.location.to_string()
    }
}

async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.map_err(|error| FetchError::Crashed { cause: error.to_string() })?
}

/// Whose slots a download takes.
fn server(url: &str) -> String {
    url::Url::parse(url).ok().and_then(|url| HostPort::of(&url)).map(|host| host.to_string()).unwrap_or_default()
}
