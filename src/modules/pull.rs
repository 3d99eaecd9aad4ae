//! Keeps an image's module current: pull policy, tags, secrets.
//!
//! Which image a tag means is asked once, and again where the policy or `--tag-refresh` says so; what is rolled out is
//! always the module of one digest. A plugin whose secret changes is tried again at once.

use std::sync::{Arc, PoisonError};

use super::error::FetchError;
use super::failure::NextTry;
use super::keeper::Keeper;
use super::library::Checked;
use super::memory::Given;
use super::pace::{Backoff, jittered_now};
use super::registry::{self, Keys, PullError, Resolved};
use super::stats::FetchResult;
use super::{TagRefresh, image};
use crate::model::{Digest, ImageReference, ModuleLocation, ModuleRef, PullPolicy, PullSecret};

/// What another attempt may have to wait for.
struct Known {
    secret: Option<Arc<PullSecret>>,
    edit: Option<u64>,
}

impl Keeper {
    /// Returns when nothing can change any more.
    pub(super) async fn keep_image(&self, text: &str) {
        let image: ImageReference = match text.parse() {
            Ok(image) => image,
            Err(error) => {
                return self.fail(&pull_error(text, PullError::from(error)), NextTry::WhenPluginChanges).await;
            }
        };
        if !is_asked_always(&self.reference) && self.ready_from_store().await {
            self.count(FetchResult::Stored);
        } else if !self.fetch_until_ready(&image).await {
            return;
        }
        if let Some(refresh) = self.room.tag_refresh.filter(|_| !self.is_fixed(&image)) {
            self.follow_tag(&image, refresh).await;
        }
    }

    /// False if nothing but another plugin helps.
    async fn fetch_until_ready(&self, image: &ImageReference) -> bool {
        let mut backoff = Backoff::new(&self.room.pace);
        loop {
            let known = self.known();
            let Err(error) = self.patiently(Box::pin(self.fetch_image(image))).await else { return true };
            if image.digest.is_some() && error.is_final_of_a_digest() {
                self.fail(&error, NextTry::WhenPluginChanges).await;
                return false;
            }
            self.wait_after(&error, image, &known, &mut backoff).await;
        }
    }

    /// Notes the failure and waits until it is worth another attempt: for the time, for another image under the tag, or
    /// for an edit of the secret or of the plugin.
    async fn wait_after(&self, error: &FetchError, image: &ImageReference, known: &Known, backoff: &mut Backoff) {
        if let FetchError::Pull { cause, .. } = error
            && matches!(**cause, PullError::Secret { .. })
        {
            self.fail(error, NextTry::WhenSecretChanges).await;
            return self.secret_changed(&known.secret).await;
        }
        let wait = self.wait(error, backoff);
        self.fail(error, NextTry::after(wait)).await;
        tokio::select! {
            () = tokio::time::sleep(wait) => return,
            () = self.secret_changed(&known.secret) => {}
            () = self.edited(known.edit) => {}
            () = self.tag_moved(image), if error.is_about_content() => {}
        }
        *backoff = Backoff::new(&self.room.pace);
    }

    /// Returns when the tag means another image than the one that would not do. Only where tags are followed: the one
    /// that failed is not fetched again and again for it.
    async fn tag_moved(&self, image: &ImageReference) {
        let refresh = self.room.tag_refresh.filter(|refresh| refresh.rolls_out && !self.is_fixed(image));
        let Some(refresh) = refresh else { return std::future::pending().await };
        loop {
            tokio::time::sleep(jittered_now(refresh.every)).await;
            let pulled = *self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
            match Box::pin(self.current_digest(image)).await {
                Ok(current) if Some(current) != pulled => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(module = %self.name(), %error, "tag cannot be asked for"),
            }
        }
    }

    /// Asks again and again which image the tag means.
    async fn follow_tag(&self, image: &ImageReference, refresh: TagRefresh) {
        let mut backoff = Backoff::new(&self.room.pace);
        tokio::time::sleep(jittered_now(refresh.every)).await;
        loop {
            let known = self.known();
            match Box::pin(self.refresh_tag(image, refresh)).await {
                Ok(()) => {
                    backoff = Backoff::new(&self.room.pace);
                    tokio::time::sleep(jittered_now(refresh.every)).await;
                }
                Err(error) => self.wait_after(&error, image, &known, &mut backoff).await,
            }
        }
    }

    /// Whether it can never mean another image.
    fn is_fixed(&self, image: &ImageReference) -> bool {
        image.digest.is_some() || self.is_pinned()
    }

    /// Looked at before an attempt: what changes meanwhile is seen as a change.
    fn known(&self) -> Known {
        Known { secret: self.secret(), edit: self.edit() }
    }

    async fn refresh_tag(&self, image: &ImageReference, refresh: TagRefresh) -> Result<(), FetchError> {
        let current = self.current_digest(image).await?;
        // Not with what the memory has of the tag: plugins of another pull policy have their part in that.
        if Some(current) == self.room.board.image(&self.reference) {
            self.room.board.succeed(&self.reference);
            Ok(())
        } else if refresh.rolls_out {
            self.fetch_image(image).await
        } else {
            if self.room.board.tag_means(&self.reference, current) {
                tracing::warn!(module = %self.name(), image = %current, "tag means another image now");
            }
            Ok(())
        }
    }

    async fn current_digest(&self, image: &ImageReference) -> Result<Digest, FetchError> {
        let keys = self.keys(image).await.map_err(|error| pull_error(&self.image_name(), error))?;
        let _slot = self.room.slots.take(&image.registry_name()).await;
        let asked = self.room.registries.current_digest(image, &keys);
        let asked = registry::within(self.room.limits.overall, "the manifest", asked).await;
        asked.map_err(|error| pull_error(&self.image_name(), error))
    }

    async fn fetch_image(&self, image: &ImageReference) -> Result<(), FetchError> {
        let failed = |error| pull_error(&self.image_name(), error);
        let (limit, server) = (self.room.limits.overall, image.registry_name());
        let keys = self.keys(image).await.map_err(failed)?;
        // Also where the store has the module: the registry alone knows who may have it.
        let slot = self.room.slots.take(&server).await;
        let resolved = registry::within(limit, "the manifest", self.room.registries.resolve(image, &keys)).await;
        drop(slot);
        let (mut session, resolved) = resolved.map_err(failed)?;
        *self.pulled.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved.digest);
        // Held until the module is stored, so that nobody downloads it at the same time. Waited for without a slot: other
        // images of the registry go on.
        let _gate = self.room.gates.enter(&image.home(), resolved.image).await;
        if let Some((checked, given)) = self.stored(image, &resolved).await {
            let served = given.served;
            self.room.library.remember(&self.reference, given).await;
            self.count(FetchResult::Stored);
            self.ready(checked, served);
            return Ok(());
        }
        let _slot = self.room.slots.take(&server).await;
        let downloaded = session.download_all(&resolved, &self.room.spools, &|_| {});
        let downloaded = registry::within(limit, "the image", downloaded).await.map_err(failed)?;
        let limits = image::UnpackLimits { module: self.room.limits.size, ..Default::default() };
        let unpacked = registry::unpack(resolved, downloaded, &self.room.spools, limits).await.map_err(failed)?;
        let served = unpacked.given.served;
        let checked = self.room.library.admit_image(&self.reference, unpacked).await?;
        self.room.fetches.fetched(&self.reference.location, checked.module.bytes.len());
        self.ready(checked, served);
        Ok(())
    }

    /// The module of an image that was downloaded before.
    async fn stored(&self, image: &ImageReference, resolved: &Resolved) -> Option<(Checked, Given)> {
        let library = &self.room.library;
        let known = library.memory.of_image(&image.home(), &resolved.image)?;
        let checked = library.load(&known).await?;
        let given = resolved.given(known.module, known.root_id, known.warnings);
        self.reference.sha256.is_none_or(|pin| given.is(&pin)).then_some((checked, given))
    }

    async fn keys(&self, image: &ImageReference) -> Result<Keys, PullError> {
        match &self.reference.pull_secret {
            Some(secret) => Keys::of_secret(secret, &self.room.secrets.borrow().clone(), image),
            None => {
                let image = image.clone();
                let read = tokio::task::spawn_blocking(move || Keys::of_operator(&image)).await;
                read.map_err(|error| PullError::Protocol {
                    what: "docker config".to_owned(),
                    reason: error.to_string(),
                })
            }
        }
    }

    fn secret(&self) -> Option<Arc<PullSecret>> {
        self.room.secrets.borrow().get(self.reference.pull_secret.as_ref()?).cloned()
    }

    /// Never returns where the plugin names none.
    async fn secret_changed(&self, before: &Option<Arc<PullSecret>>) {
        let Some(name) = &self.reference.pull_secret else { return std::future::pending().await };
        let mut secrets = self.room.secrets.subscribe();
        let is_other = |secrets: &registry::Secrets| secrets.get(name) != before.as_ref();
        if secrets.wait_for(is_other).await.is_err() {
            // The room is gone.
            std::future::pending().await
        }
    }

    fn image_name(&self) -> String {
        self.name().trim_start_matches("oci://").to_owned()
    }
}

/// Whether the server is asked although the store has what it gave before. What is pinned never changes.
pub fn is_asked_always(reference: &ModuleRef) -> bool {
    if reference.sha256.is_some() {
        return false;
    }
    let image = match &reference.location {
        ModuleLocation::Oci(text) => text.parse::<ImageReference>().ok(),
        ModuleLocation::Http(_) => None,
        ModuleLocation::File(_) => return false,
    };
    match reference.pull_policy {
        PullPolicy::Always => image.is_none_or(|image| image.digest.is_none()),
        PullPolicy::IfNotPresent => false,
        PullPolicy::Unspecified => image.is_some_and(|image| image.is_latest()),
    }
}

fn pull_error(reference: &str, cause: PullError) -> FetchError {
    FetchError::Pull { reference: reference.to_owned(), cause: Box::new(cause) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(location: &str, pull_policy: PullPolicy, is_pinned: bool) -> bool {
        let location = match location.strip_prefix("oci://") {
            Some(reference) => ModuleLocation::Oci(reference.to_owned()),
            None => ModuleLocation::Http(location.to_owned()),
        };
        let sha256 = is_pinned.then(|| Digest::of(b"module"));
        is_asked_always(&ModuleRef { location, sha256, pull_policy, pull_secret: None })
    }

    #[test]
    fn what_is_in_the_store_is_asked_for_again_by_policy_and_by_the_tag_latest() {
        use PullPolicy::{Always, IfNotPresent, Unspecified};
        let pinned = format!("oci://r.test/a:latest@sha256:{}", "a".repeat(64));
        let cases = [
            ("oci://r.test/a", [true, false, true]),
            ("oci://r.test/a:latest", [true, false, true]),
            ("oci://r.test/a:v1", [false, false, true]),
            (pinned.as_str(), [false, false, false]),
            ("http://m.test/a.wasm", [false, false, true]),
        ];
        for (location, expected) in cases {
            for (policy, expected) in [Unspecified, IfNotPresent, Always].into_iter().zip(expected) {
                assert_eq!(asked(location, policy, false), expected, "{location} {policy:?}");
                assert!(!asked(location, policy, true), "{location} {policy:?} with sha256");
            }
        }
    }
}
