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
    last_ack: Option<Instant>,
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
        self.under_way.push(Push { seen: Instant::now(), last_ack: None, waiting: HashSet::new() });
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
        self.leave(proxy, Some(Instant::now()));
    }

    /// A proxy that has gone is not waited for: a change ends with the last ACK of the others, if there was one.
    pub fn gone(&mut self, proxy: ProxyKey) {
        self.leave(proxy, None);
    }

    fn leave(&mut self, proxy: ProxyKey, acked: Option<Instant>) {
        for push in &mut self.under_way {
            if !push.waiting.remove(&proxy) {
                continue;
            }
            push.last_ack = acked.or(push.last_ack);
            if let Some(last_ack) = push.last_ack.filter(|_| push.waiting.is_empty()) {
                self.seconds.observe(last_ack.duration_since(push.seen).as_secs_f64());
            }
        }
    }

    fn finish(&mut self) {
        self.under_way.retain(|push| !push.waiting.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn count(pushes: &Pushes) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        pushes.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        text.lines().find_map(|line| line.strip_prefix("push_seconds_count ")).unwrap().to_owned()
    }

    #[test]
    fn a_change_counts_although_a_proxy_leaves_before_it_has_answered() {
        let mut pushes = Pushes::default();
        let [one, two] = [ProxyKey::of(1), ProxyKey::of(2)];
        pushes.begin();
        pushes.sent(one);
        pushes.sent(two);
        pushes.settled(one);
        pushes.gone(two);
        assert_eq!(count(&pushes), "1");

        // Nobody took this one.
        pushes.begin();
        pushes.sent(one);
        pushes.gone(one);
        assert_eq!(count(&pushes), "1");
    }
}
