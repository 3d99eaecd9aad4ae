//! gRPC health: whether streams are answered here.
//!
//! Comes in: whether all sources are loaded. Goes out: SERVING or NOT_SERVING, for the server (`""`) and for each of its
//! services, to whoever checks or watches. Before the sources are loaded streams are held without an answer, so that a
//! load balancer had better send Envoys elsewhere.

use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

/// Keeps what is told up to date.
pub(super) struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl Health {
    /// NOT_SERVING at first.
    pub async fn of(services: impl IntoIterator<Item = &'static str>) -> Self {
        let health = Self { reporter: HealthReporter::new(), services: [""].into_iter().chain(services).collect() };
        health.tell(ServingStatus::NotServing).await;
        health
    }

    pub fn service(&self) -> HealthServer<impl HealthApi> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Follows `ready` until `shutdown`, from when on nothing is served any more. Never returns.
    pub async fn follow(&self, mut ready: Option<Receiver<bool>>, shutdown: CancellationToken) {
        loop {
            let is_ready = ready.as_mut().is_none_or(|ready| *ready.borrow_and_update());
            self.tell(if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
            let changed = async {
                let is_told = match &mut ready {
                    Some(ready) => ready.changed().await.is_ok(),
                    None => false,
                };
                if !is_told {
                    // Nobody is left who could say anything else.
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = changed => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.tell(ServingStatus::NotServing).await;
        std::future::pending().await
    }

    async fn tell(&self, status: ServingStatus) {
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
