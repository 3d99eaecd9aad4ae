//! The long tasks of the control plane: each has a name, and lives as long as the others.
//!
//! A control plane without one of them looks alive and does nothing, so that the first one that ends before it was
//! asked to ends them all, and the process with them: whoever supervises it starts a whole one.

use std::collections::HashMap;

use anyhow::anyhow;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Tasks that run until `shutdown`.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
    shutdown: CancellationToken,
}

impl Tasks {
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { set: JoinSet::new(), names: HashMap::new(), shutdown }
    }

    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async {
            task.await;
            Ok(())
        });
    }

    pub fn spawn_fallible(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits for all of them. An error says which one ended first although nobody had asked it to.
    pub async fn wait(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(ended) = self.set.join_next_with_id().await {
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let name = self.names.get(&id).copied().unwrap_or_default();
            let fault = match ended {
                Ok((_, Err(error))) => Some(error.context(format!("{name} failed"))),
                Err(error) => Some(anyhow!("{name} crashed: {error}")),
                Ok((_, Ok(()))) if !self.shutdown.is_cancelled() => Some(anyhow!("{name} ended by itself")),
                Ok((_, Ok(()))) => None,
            };
            let Some(fault) = fault else { continue };
            tracing::error!(task = name, error = format!("{fault:#}"), "the control plane ends");
            outcome = outcome.and(Err(fault));
            self.shutdown.cancel();
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(shutdown: CancellationToken) {
        shutdown.cancelled().await;
    }

    #[tokio::test]
    async fn a_task_that_crashes_ends_the_others_and_is_told() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("modules", waits(shutdown.clone()));
        tasks.spawn("reconciler", async { panic!("a bug") });
        let error = tasks.wait().await.unwrap_err().to_string();
        assert!(error.starts_with("reconciler crashed: "), "{error}");
        assert!(error.contains("a bug"), "{error}");
    }

    #[tokio::test]
    async fn a_task_that_ends_too_early_or_fails_ends_the_others_and_is_told() {
        for fails in [false, true] {
            let shutdown = CancellationToken::new();
            let mut tasks = Tasks::new(shutdown.clone());
            tasks.spawn("modules", waits(shutdown.clone()));
            tasks.spawn_fallible("admin port", async move { if fails { Err(anyhow!("broken pipe")) } else { Ok(()) } });
            let error = format!("{:#}", tasks.wait().await.unwrap_err());
            assert_eq!(error, if fails { "admin port failed: broken pipe" } else { "admin port ended by itself" });
        }
    }

    #[tokio::test]
    async fn a_shutdown_is_no_error() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("modules", waits(shutdown.clone()));
        shutdown.cancel();
        assert!(tasks.wait().await.is_ok());
    }
}
