//! Follows the rollout of plugins: one summary for all who watch, as making it takes the reconciler's time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, future, stream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::admin::{Query, ask};
use crate::protobuf::admin::watch_rollout_response::Event;
use crate::protobuf::admin::{ModuleFailure, Plugin, WatchRolloutResponse};

/// Summaries are made at most this often; what happens between is in the next one.
const INTERVAL: Duration = Duration::from_millis(50);
/// The reconciler spends at most a tenth of its time on them.
const REST: u32 = 9;
/// Each holds the plugins that it was told of last, which all share.
const WATCHERS: usize = 64;

/// All plugins, by id.
type Summary = Arc<BTreeMap<String, Plugin>>;

/// The line between those who watch and the one who asks for them.
#[derive(Debug)]
pub struct Rollouts {
    /// Absent while nobody watches.
    latest: watch::Sender<Option<Summary>>,
    arrived: Notify,
    places: Arc<Semaphore>,
}

impl Rollouts {
    pub fn new() -> Arc<Self> {
        let places = Arc::new(Semaphore::new(WATCHERS));
        Arc::new(Self { latest: watch::Sender::new(None), arrived: Notify::new(), places })
    }

    /// Makes a summary after each change while somebody watches.
    pub async fn run(
        self: Arc<Self>,
        queries: mpsc::Sender<Query>,
        mut changes: watch::Receiver<u64>,
        shutdown: CancellationToken,
    ) {
        let follow = async {
            loop {
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = self.arrived.notified() => {}
                }
                if self.latest.receiver_count() == 0 {
                    self.latest.send_replace(None);
                    continue;
                }
                changes.mark_unchanged();
                let asked = Instant::now();
                let Some(listed) = ask(&queries, Query::Rollout).await else { return };
                let plugins = listed.plugins.into_iter().map(|plugin| (plugin.id.clone(), plugin)).collect();
                self.latest.send_replace(Some(Arc::new(plugins)));
                sleep(INTERVAL.max(asked.elapsed() * REST)).await;
            }
        };
        tokio::select! {
            () = follow => shutdown.cancelled().await,
            () = shutdown.cancelled() => {}
        }
    }

    /// Every change of a plugin's state, beginning with all that there is. A slow watcher gets the latest and never a
    /// queue.
    pub fn watch(&self) -> Result<impl Stream<Item = WatchRolloutResponse> + Send + 'static, Status> {
        let place =
            self.places.clone().try_acquire_owned().map_err(|_| {
                Status::resource_exhausted(format!("{WATCHERS} watchers follow already: end one of them"))
            })?;
        let summaries = WatchStream::new(self.latest.subscribe()).filter_map(future::ready);
        self.arrived.notify_one();
        let events = summaries.scan((Summary::default(), place), |(known, _), now| {
            let events = events(known, &now);
            *known = now;
            future::ready(Some(stream::iter(events)))
        });
        Ok(events.flatten().map(|event| WatchRolloutResponse { event: Some(event) }))
    }
}

fn events(known: &Summary, now: &Summary) -> Vec<Event> {
    let removed = known.keys().filter(|id| !now.contains_key(*id)).cloned().map(Event::Removed);
    let is_news = |plugin: &&Plugin| known.get(&plugin.id).map(without_attempts) != Some(without_attempts(plugin));
    let changed = now.values().filter(is_news).cloned();
    removed.chain(changed.map(Event::Plugin)).collect()
}

/// That a module failed once more, for the same reason, is no change of its plugin.
fn without_attempts(plugin: &Plugin) -> Plugin {
    let module_failure = plugin.module_failure.as_ref();
    let module_failure =
        module_failure.map(|failure| ModuleFailure { attempts: 0, next_try: String::new(), ..failure.clone() });
    Plugin { module_failure, ..plugin.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::admin::ListPluginsResponse;

    fn plugin(id: &str, revision: &str) -> Plugin {
        Plugin { id: id.into(), running_revision: revision.into(), ..Default::default() }
    }

    /// Answers with these plugins, as often as it is asked.
    fn answering(plugins: Vec<Plugin>) -> (mpsc::Sender<Query>, Arc<std::sync::atomic::AtomicUsize>) {
        let (queries, mut asked) = mpsc::channel(1);
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Some(Query::Rollout(answer)) = asked.recv().await {
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                drop(answer.send(ListPluginsResponse {
                    plugins: plugins.clone(),
                    faults: Vec::new(),
                    ..ListPluginsResponse::default()
                }));
            }
        });
        (queries, count)
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_who_watch_cost_the_reconciler_what_one_costs() {
        let (queries, asked) = answering(vec![plugin("shop/a", "1")]);
        let (changes, changed) = watch::channel(0_u64);
        let (rollouts, shutdown) = (Rollouts::new(), CancellationToken::new());
        let running = tokio::spawn(rollouts.clone().run(queries, changed, shutdown.clone()));
        changes.send_replace(1);
        tokio::task::yield_now().await;
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0, "nobody watches");

        let mut watchers: Vec<_> = (0..50).map(|_| Box::pin(rollouts.watch().unwrap())).collect();
        for watcher in &mut watchers {
            let told = watcher.next().await.unwrap().event.unwrap();
            assert_eq!(told, Event::Plugin(plugin("shop/a", "1")));
        }
        for number in 0..1000 {
            changes.send_replace(number);
            tokio::task::yield_now().await;
        }
        assert!(asked.load(std::sync::atomic::Ordering::Relaxed) <= 2);
        shutdown.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn one_watcher_too_many_is_told_so_and_takes_nobodys_place() {
        let rollouts = Rollouts::new();
        let watchers: Vec<_> = (0..WATCHERS).map(|_| rollouts.watch().unwrap()).collect();
        assert_eq!(rollouts.watch().err().unwrap().code(), tonic::Code::ResourceExhausted);
        drop(watchers);
        assert!(rollouts.watch().is_ok());
    }

    #[test]
    fn what_has_not_changed_is_not_told_again() {
        let summary = |plugins: &[Plugin]| Summary::new(plugins.iter().map(|it| (it.id.clone(), it.clone())).collect());
        let before = summary(&[plugin("shop/a", "1"), plugin("shop/b", "1"), plugin("shop/c", "1")]);
        let after = summary(&[plugin("shop/a", "1"), plugin("shop/b", "2")]);
        let told = events(&before, &after);
        assert_eq!(told, [Event::Removed("shop/c".into()), Event::Plugin(plugin("shop/b", "2"))]);
    }
}
