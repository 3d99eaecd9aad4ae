//! Images in registries: from a reference to the module in the image, and back for `push`.
//!
//! Comes in: a reference, and whose credentials to use. Goes out: blobs whose digests were checked, or one sentence why
//! not. What one secret may know never helps a pull with another one or with none: tokens are kept per secret,
//! credential, registry and repository, and nothing else is kept at all.
//!
//! ```text
//!   keychain ─ model::DockerConfig                  what is wanted, and whose credentials are for it
//!   session ┬ challenge  tokens  answer             one repository with one credential: being let in, refusals
//!           ├ manifest   blob                       the way out, every byte checked
//!           └ push                                  the way in
//! ```

mod answer;
mod blob;
mod challenge;
mod error;
mod keychain;
mod manifest;
mod push;
mod session;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

pub use answer::retry_after;
pub use error::PullError;
pub use keychain::{Keys, Secrets};
pub use manifest::Resolved;
pub use session::{Access, Session};

use super::image::{Extracted, UnpackLimits};
use super::memory::Given;
use super::spool::{Batch, Room, Spooled, Spools};
use super::transport::Transport;
use crate::model::{Digest, ImageReference};
use tokens::Tokens;

/// All registries.
pub struct Client {
    transport: Arc<Transport>,
    tokens: Tokens,
}

/// A module out of its image, and the room in memory that it was given.
#[derive(Debug)]
pub struct Unpacked {
    pub extracted: Extracted,
    pub given: Given,
    pub room: Room,
}

impl Client {
    pub fn new(transport: Arc<Transport>) -> Self {
        Self { transport, tokens: Tokens::default() }
    }

    /// What the reference stands for now, and a session that may fetch it: with the first credential that is let in.
    pub async fn resolve<'c>(
        &'c self,
        reference: &'c ImageReference,
        keys: &Keys,
    ) -> Result<(Session<'c>, Resolved), PullError> {
        let (mut session, mut others) = self.sessions(reference, keys, Access::Pull);
        loop {
            match session.resolve().await {
                Ok(resolved) => return Ok((session, resolved)),
                Err(error) => session = others.after(error)?,
            }
        }
    }

    /// The digest that the reference has now.
    pub async fn current_digest(&self, reference: &ImageReference, keys: &Keys) -> Result<Digest, PullError> {
        let (mut session, mut others) = self.sessions(reference, keys, Access::Pull);
        loop {
            match session.current_digest().await {
                Ok(digest) => return Ok(digest),
                Err(error) => session = others.after(error)?,
            }
        }
    }

    /// With the best credential, or with none where there is none; and what else may be tried.
    pub fn sessions<'c>(
        &'c self,
        reference: &'c ImageReference,
        keys: &Keys,
        access: Access,
    ) -> (Session<'c>, OtherSessions<'c>) {
        let session =
            |credential| Session::new(self, reference, access, keys.whose.clone(), credential, keys.in_words.clone());
        let mut credentials = keys.credentials.iter().cloned();
        let first = session(credentials.next());
        let others: Vec<_> = credentials.map(Some).map(session).collect();
        (first, OtherSessions(others.into_iter()))
    }
}

/// With the credentials that fit less well, best first.
pub struct OtherSessions<'c>(std::vec::IntoIter<Session<'c>>);

impl<'c> OtherSessions<'c> {
    /// The next one, if another credential may do better than the one that this error is of.
    pub fn after(&mut self, error: PullError) -> Result<Session<'c>, PullError> {
        if error.is_about_rights() { self.0.next().ok_or(error) } else { Err(error) }
    }
}

/// All blobs that hold a module.
pub struct Downloaded {
    blobs: Vec<Spooled>,
    batch: Batch,
}

impl Session<'_> {
    /// The blobs that hold the module, one after the other.
    pub async fn download_all(
        &mut self,
        resolved: &Resolved,
        spools: &Spools,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Downloaded, PullError> {
        let limits = self.client.transport.limits();
        let wanted = resolved.manifest.blobs()?;
        if let Some(blob) = wanted.iter().find(|blob| blob.size > limits.size) {
            return Err(PullError::TooLarge { what: format!("blob sha256:{}", blob.digest), limit: limits.size });
        }
        let mut batch = spools.batch().await;
        let mut blobs = Vec::new();
        for blob in wanted {
            let spool = batch.open().await;
            blobs.push(self.download(blob, spool, progress).await?);
        }
        Ok(Downloaded { blobs, batch })
    }
}

/// Takes the module out of its blobs, when there is memory for it.
pub async fn unpack(
    resolved: Resolved,
    downloaded: Downloaded,
    spools: &Spools,
    limits: UnpackLimits,
) -> Result<Unpacked, PullError> {
    let Downloaded { blobs, batch } = downloaded;
    let unpacked = if resolved.manifest.is_packed() { limits.memory() } else { 0 };
    let room = batch.room(spools, blobs.iter().map(Spooled::len).fold(unpacked, u64::saturating_add)).await;
    let mut read = Vec::new();
    for blob in blobs {
        read.push(blob.read().await.map_err(|failed| failed.about("a downloaded blob"))?);
    }
    let unpacked = tokio::task::spawn_blocking(move || {
        let extracted = resolved.manifest.extract(read, &limits)?;
        let root_id = extracted.root_id().map(str::to_owned);
        let given = resolved.given(Digest::of(&extracted.module), root_id, extracted.warnings.clone());
        Ok(Unpacked { extracted, given, room })
    });
    let crashed = |error: tokio::task::JoinError| PullError::Protocol {
        what: "the image".to_owned(),
        reason: format!("unpacking crashed: this is a bug in wasmplane ({error})"),
    };
    unpacked.await.map_err(crashed)?
}

/// Ends what takes longer than a fetch may.
pub async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, PullError>>,
) -> Result<T, PullError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(PullError::Transport {
            what: what.to_owned(),
            cause: format!("not finished after {} s", limit.as_secs()),
        }),
    }
}

#[cfg(test)]
mod tests;
