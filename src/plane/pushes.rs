//! How long a change takes from the moment it is seen to the last ACK.

use std::collections::HashSet;
use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::proxies::ProxyKey;

/// Changes under way. Proxies that are touched again before they settle count for the newer change only.
#[derive(Debug)]
pub struct Pushes {
    under_way: Vec<Push>,
    seconds: Histogram,
}

#[derive(Debug)]
struct Push {
    seen: Instant,
    waiting: HashSet<ProxyKey>,
}

/// A change that has not settled while this many came after it is given up on.
const PUSHES: usize = 64;

impl Default for Pushes {
    fn default() -> Self {
        let buckets = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
        Self { under_way: Vec::new(), seconds: Histogram::new(buckets) }
    }
}

impl Pushes {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("push_seconds", "Change seen until the last ACK", self.seconds.clone());
    }

    /// A change is seen; what is sent from now on belongs to it.
    pub fn begin(&mut self) {
        self.finish();
        if self.under_way.len() == PUSHES {
            self.under_way.remove(0);
        }
        self.under_way.push(Push { seen: Instant::now(), waiting: HashSet::new() });
    }

    pub fn sent(&mut self, proxy: ProxyKey) {
        for push in &mut self.under_way {
            push.waiting.remove(&proxy);
        }
        if let Some(push) = self.under_way.last_mut() {
            push.waiting.insert(proxy);
        }
    }

    pub fn settled(&mut self, proxy: ProxyKey) {
        for push in &mut self.under_way {
            if push.waiting.remove(&proxy) && push.waiting.is_empty() {
                self.seconds.observe(push.seen.elapsed().as_secs_f64());
            }
        }
    }

    fn finish(&mut self) {
        self.under_way.retain(|push| !push.waiting.is_empty());
    }
}
