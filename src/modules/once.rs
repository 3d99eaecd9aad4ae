//! Fetching and publishing once, for commands: no store, no inspection, no second attempt.
//!
//! Credentials are those of the user's own docker config.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::error::FetchError;
use super::folders;
use super::http;
use super::image::{self, Extracted, Layout, ManifestDefaults, RuntimeConfig, UnpackLimits};
use super::registry::{self, Access, Client, Keys, PullError, Session, Unpacked};
use super::spool::Spools;
use super::transport::{Limits, Settings, Transport};
use crate::model::{Digest, ImageReference, ModuleLocation};

/// A module, and what is known of where it came from.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub module: Bytes,
    /// What the reference named: an image, or an index of images.
    pub image: Option<Digest>,
    pub layout: Layout,
    pub defaults: Option<ManifestDefaults>,
    pub runtime: Option<RuntimeConfig>,
    /// What is odd about the packaging, and harmless.
    pub warnings: Vec<String>,
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes are to come or go, as far as is known.
    Total(u64),
    /// So many more have.
    Bytes(u64),
}

/// Called from any thread.
pub type Watch = Arc<dyn Fn(Progress) + Send + Sync>;

/// What `wasmplane push` puts into a registry.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Everything that the manifest speaks of.
    pub blobs: Vec<Bytes>,
    pub manifest: Bytes,
    pub media_type: &'static str,
}

/// What is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// With its registry, repository and tag.
    pub reference: String,
    pub digest: Digest,
}

/// Fetches one module. Blocks on local files, which only commands may do.
pub async fn fetch_once(location: &ModuleLocation, network: Settings, watch: Watch) -> Result<Fetched, FetchError> {
    let limits = Limits::default();
    match location {
        ModuleLocation::File(path) => unwrap(folders::read_file(path, limits.size)?),
        ModuleLocation::Http(url) => {
            let transport = Transport::new(network, limits);
            let (spooled, _batch) = http::get(&transport, &Spools::in_memory(), url, &*watch).await?;
            unwrap(spooled.read().await.map_err(|error| http::failed(url, error.to_string()))?)
        }
        ModuleLocation::Oci(text) => {
            let transport = Arc::new(Transport::new(network, limits));
            let pulled = pull(text, &transport, watch).await;
            pulled.map_err(|cause| FetchError::Pull { reference: text.clone(), cause: Box::new(cause) })
        }
    }
}

fn unwrap(body: Bytes) -> Result<Fetched, FetchError> {
    Ok(Fetched::of(image::unwrap(body, &UnpackLimits::default())?, None))
}

impl Fetched {
    fn of(extracted: Extracted, image: Option<Digest>) -> Self {
        let Extracted { module, layout, defaults, runtime, warnings } = extracted;
        Self { module, image, layout, defaults, runtime, warnings }
    }
}

async fn pull(text: &str, transport: &Arc<Transport>, watch: Watch) -> Result<Fetched, PullError> {
    let reference: ImageReference = text.parse()?;
    let (client, spools) = (Client::new(Arc::clone(transport)), Spools::in_memory());
    let keys = Keys::of_operator(&reference);
    let pulled = async {
        let (mut session, resolved) = client.resolve(&reference, &keys).await?;
        watch(Progress::Total(resolved.manifest.blobs()?.iter().map(|blob| blob.size).sum()));
        let blobs = session.download_all(&resolved, &spools, &|bytes| watch(Progress::Bytes(bytes))).await?;
        Ok((resolved, blobs))
    };
    let (resolved, blobs) = registry::within(transport.limits().overall, "the image", pulled).await?;
    let Unpacked { extracted, given, .. } = registry::unpack(resolved, blobs, &spools, UnpackLimits::default()).await?;
    Ok(Fetched::of(extracted, given.served))
}

/// Puts an image into a registry: its blobs, where they are not there yet, and then its manifest.
pub async fn push(text: &str, network: Settings, upload: Upload, watch: Watch) -> Result<Pushed, FetchError> {
    let limits = Limits::default();
    let transport = Arc::new(Transport::for_uploads(network, limits));
    let pushed = registry::within(limits.overall, "the image", push_with(text, transport, upload, watch)).await;
    pushed.map_err(|cause| FetchError::Pull {
        reference: text.trim_start_matches("oci://").to_owned(),
        cause: Box::new(cause),
    })
}

async fn push_with(text: &str, transport: Arc<Transport>, upload: Upload, watch: Watch) -> Result<Pushed, PullError> {
    let reference: ImageReference = text.trim_start_matches("oci://").parse()?;
    let client = Client::new(transport);
    let keys = Keys::of_operator(&reference);
    let (mut session, mut others) = client.sessions(&reference, &keys, Access::Push);
    let told = Arc::new(AtomicU64::new(0));
    watch(Progress::Total(upload.size()));
    loop {
        match put(&mut session, &upload, &watch, &told).await {
            Ok(digest) => return Ok(Pushed { reference: reference.to_string(), digest }),
            Err(error) => session = others.after(error)?,
        }
    }
}

/// With one credential. `told`: bytes that `watch` has heard of, which are not told again when they are sent again.
async fn put(
    session: &mut Session<'_>,
    upload: &Upload,
    watch: &Watch,
    told: &Arc<AtomicU64>,
) -> Result<Digest, PullError> {
    let mut done = 0;
    for blob in &upload.blobs {
        let (watch, told, sent) = (Arc::clone(watch), Arc::clone(told), AtomicU64::new(done));
        done += blob.len() as u64;
        let tell = move |bytes| {
            let now = (sent.fetch_add(bytes, Ordering::Relaxed) + bytes).min(done);
            let news = now.saturating_sub(told.fetch_max(now, Ordering::Relaxed));
            if news > 0 {
                watch(Progress::Bytes(news));
            }
        };
        session.upload(blob.clone(), Arc::new(tell)).await?;
    }
    session.put_manifest(upload.manifest.clone(), upload.media_type).await
}

impl Upload {
    fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.len() as u64).sum()
    }
}
