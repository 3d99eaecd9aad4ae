//! Where downloads go while they come: unnamed files beside the store, so that slow servers hold no memory, and nothing
//! is left behind by a crash. Only what is complete is read into memory, and only so much of it at a time.
//!
//! Where the data folder cannot be written, or has no room left, downloads are kept in memory as far as they have come,
//! within a limit of their own. Who finds no room there fails at once and tries again later: it waits for no server that
//! takes its time.

mod arrived;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use arrived::Arrived;

use super::image::UnpackLimits;
use super::registry::PullError;
use crate::model::Digest;

/// Of downloads in memory while they are unpacked and inspected, and of what they unpack to. Two of the largest modules.
const MEMORY: u64 = 512 << 20;
/// Of downloads on their way where they cannot be on disk: one image of the largest kind.
const ARRIVING: u64 = 512 << 20;
/// Permits are counted in these.
const UNIT: u64 = 1 << 10;
/// Bytes that are read back at a time.
const PIECE: u64 = 64 << 10;

pub struct Spools {
    place: Place,
    memory: Arc<Semaphore>,
    /// Nobody waits for these: what holds some may wait for `memory`.
    arriving: Arc<Semaphore>,
}

enum Place {
    /// Unnamed files in this folder.
    Folder(PathBuf),
    /// Commands download one thing and end.
    Memory,
    #[cfg(test)]
    Device(PathBuf),
}

/// Held while bytes of downloads are in memory.
#[derive(Debug)]
pub struct Room {
    _permits: OwnedSemaphorePermit,
    _arrived: Option<Arc<Arrived>>,
}

/// A download on its way, hashed as it comes.
pub struct Spool {
    content: Content,
    folder: PathBuf,
    arrived: Arc<Arrived>,
    hasher: sha2::Sha256,
    length: u64,
    /// The first bytes, as far as they tell a module from what is packed.
    head: Vec<u8>,
}

/// What each module begins with.
pub const MAGIC: &[u8] = b"\0asm";

enum Content {
    File(tokio::fs::File),
    Memory {
        content: Vec<u8>,
        /// Bytes that there is room for: those before a restart are not asked for again.
        paid: u64,
        /// Why it is not on disk.
        reason: Arc<str>,
    },
}

/// A whole download.
pub struct Spooled {
    content: Content,
    is_module: bool,
    folder: PathBuf,
    digest: Digest,
    length: u64,
}

/// There is room for it neither on disk nor in memory, or what is on disk cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot be kept in {}: {cause}", folder.display())]
pub struct Failed {
    folder: PathBuf,
    cause: io::Error,
}

impl Failed {
    pub fn about(self, what: &str) -> PullError {
        PullError::Disk { what: what.to_owned(), cause: self }
    }
}

impl Spools {
    /// In the store's folder.
    pub fn beside_store(data_dir: &Path) -> Self {
        Self::at(Place::Folder(data_dir.join("modules")))
    }

    pub fn in_memory() -> Self {
        Self::at(Place::Memory)
    }

    /// A device such as `/dev/full`, which takes no byte.
    #[cfg(test)]
    pub fn on_device(path: &Path) -> Self {
        Self::at(Place::Device(path.to_owned()))
    }

    fn at(place: Place) -> Self {
        let of = |bytes: u64| Arc::new(Semaphore::new((bytes / UNIT) as usize));
        Self { place, memory: of(MEMORY), arriving: of(ARRIVING) }
    }

    /// Waits until so many bytes may be in memory. More than there ever are is all of them.
    pub async fn room(&self, bytes: u64) -> Room {
        let units = bytes.min(MEMORY).div_ceil(UNIT) as u32;
        let permits = Arc::clone(&self.memory).acquire_many_owned(units).await;
        Room { _permits: permits.expect("the semaphore is never closed"), _arrived: None }
    }

    /// Bytes that may still be taken without waiting.
    #[cfg(test)]
    pub fn free(&self) -> u64 {
        self.memory.available_permits() as u64 * UNIT
    }

    /// For downloads that belong together.
    pub async fn batch(&self) -> Batch {
        let (folder, opened) = match &self.place {
            Place::Folder(folder) => (folder.clone(), open_unnamed(folder.clone()).await),
            Place::Memory => (PathBuf::new(), Err(io::Error::other("there is no data folder"))),
            #[cfg(test)]
            Place::Device(path) => (path.clone(), File::options().write(true).open(path)),
        };
        Batch { folder, next: Some(opened), arrived: Arc::new(Arrived::new(&self.arriving)) }
    }
}

/// Some downloads on their way, each on disk or in memory.
pub struct Batch {
    folder: PathBuf,
    /// Opened to see whether the folder can be used.
    next: Option<io::Result<File>>,
    /// Those in memory.
    arrived: Arc<Arrived>,
}

impl Batch {
    pub async fn open(&mut self) -> Spool {
        let folder = self.folder.clone();
        let opened = match self.next.take() {
            Some(Err(error)) => {
                // The others of the batch need not try again.
                self.next = Some(Err(io::Error::other(error.to_string())));
                Err(error)
            }
            Some(Ok(file)) => Ok(file),
            None => open_unnamed(folder.clone()).await,
        };
        let content = match opened {
            Ok(file) => Content::File(tokio::fs::File::from_std(file)),
            Err(error) => Content::in_memory(&error),
        };
        let arrived = Arc::clone(&self.arrived);
        Spool { content, folder, arrived, hasher: sha2::Sha256::new(), length: 0, head: Vec::new() }
    }

    /// For reading and unpacking what is downloaded.
    pub async fn room(self, spools: &Spools, bytes: u64) -> Room {
        Room { _arrived: Some(self.arrived), ..spools.room(bytes).await }
    }
}

impl Content {
    /// `cause`: what became of the attempt to put it on disk.
    fn in_memory(cause: &io::Error) -> Self {
        Self::Memory { content: Vec::new(), paid: 0, reason: cause.to_string().into() }
    }
}

async fn open_unnamed(folder: PathBuf) -> io::Result<File> {
    let opened = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder)?;
        tempfile::tempfile_in(&folder)
    });
    opened.await.unwrap_or_else(|crashed| Err(io::Error::other(crashed)))
}

impl Spool {
    pub fn len(&self) -> u64 {
        self.length
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        if let Content::File(file) = &mut self.content
            && let Err(cause) = write_through(file, bytes).await
        {
            self.move_to_memory(cause).await?;
        }
        self.hasher.update(bytes);
        self.head.extend(bytes.iter().take(MAGIC.len() - self.head.len()));
        self.length += bytes.len() as u64;
        self.append(bytes)
    }

    /// What is in memory grows; a file has it already.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        if let Content::Memory { content, paid, reason } = &mut self.content {
            let length = content.len() as u64 + bytes.len() as u64;
            if length > *paid {
                let grown = self.arrived.grow(length - *paid, reason);
                *paid += grown.map_err(|cause| Failed { folder: self.folder.clone(), cause })?;
            }
            content.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// What has come so far: the file takes no more, and gives back what it has.
    async fn move_to_memory(&mut self, cause: io::Error) -> Result<(), Failed> {
        tracing::debug!(folder = %self.folder.display(), error = %cause, "download goes on in memory");
        let file = std::mem::replace(&mut self.content, Content::in_memory(&cause));
        let Content::File(mut file) = file else { return Ok(()) };
        if self.length > 0 {
            file.rewind().await.map_err(|cause| self.failed(cause))?;
        }
        let mut left = self.length;
        while left > 0 {
            let mut piece = vec![0; left.min(PIECE) as usize];
            file.read_exact(&mut piece).await.map_err(|cause| self.failed(cause))?;
            self.append(&piece)?;
            left -= piece.len() as u64;
        }
        Ok(())
    }

    /// As if nothing had come.
    pub async fn restart(&mut self) -> Result<(), Failed> {
        (self.hasher, self.length, self.head) = (sha2::Sha256::new(), 0, Vec::new());
        let restarted = match &mut self.content {
            Content::File(file) => restart_file(file).await,
            Content::Memory { content, .. } => {
                content.clear();
                Ok(())
            }
        };
        restarted.map_err(|cause| self.failed(cause))
    }

    pub fn finish(self) -> Spooled {
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        Spooled {
            content: self.content,
            is_module: self.head == MAGIC,
            folder: self.folder,
            digest,
            length: self.length,
        }
    }

    fn failed(&self, cause: io::Error) -> Failed {
        Failed { folder: self.folder.clone(), cause }
    }
}

/// To the last byte, so that what fails is these bytes and none before them.
async fn write_through(file: &mut tokio::fs::File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes).await?;
    file.flush().await
}

async fn restart_file(file: &mut tokio::fs::File) -> io::Result<()> {
    file.flush().await?;
    if file.metadata().await?.is_file() {
        file.set_len(0).await?;
        file.rewind().await?;
    }
    Ok(())
}

impl Spooled {
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn len(&self) -> u64 {
        self.length
    }

    /// What reading and unpacking a body may take. What is a module already is not unpacked; what is in an archive may be
    /// packed once more, and is there beside what comes out of it.
    pub fn memory(&self, limits: &UnpackLimits) -> u64 {
        if self.is_module {
            self.length
        } else {
            self.length.saturating_add(limits.module).saturating_add(limits.memory())
        }
    }

    /// Into memory, once: the caller has the room for it.
    pub async fn read(self) -> Result<Bytes, Failed> {
        let failed = |cause| Failed { folder: self.folder.clone(), cause };
        match self.content {
            Content::Memory { mut content, .. } => {
                content.shrink_to_fit();
                Ok(content.into())
            }
            Content::File(mut file) => {
                let mut content = Vec::with_capacity(self.length as usize);
                file.rewind().await.map_err(failed)?;
                file.read_to_end(&mut content).await.map_err(failed)?;
                Ok(content.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
