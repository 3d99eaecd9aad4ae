//! The registry behind `/metrics`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::admin::Gauges;
use super::pushes::Pushes;
use crate::modules::Modules;
use crate::rollout::StateKind;

type PluginLabels = [(&'static str, String); 4];

/// All metrics of the process, named as in the documentation, under `wasmplane_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub fn new(xds: &crate::xds::Metrics, modules: &Modules, pushes: &Pushes) -> Self {
        let mut registry = Registry::with_prefix("wasmplane");
        registry.register("build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        xds.register(&mut registry);
        registry.register_collector(Box::new(ModuleCollector(modules.clone())));
        pushes.register(&mut registry);
        Self { registry }
    }

    /// The OpenMetrics text, with the reconciler's state at this moment: each scrape has its own, so that two of them at
    /// once do not disturb each other.
    pub fn encode(&self, gauges: &Gauges) -> String {
        let mut text = String::new();
        let encoded = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &registry_of(gauges)))
            .and_then(|()| encode_eof(&mut text));
        if let Err(error) = encoded {
            tracing::error!(%error, "metrics not encoded");
        }
        text
    }
}

fn registry_of(gauges: &Gauges) -> Registry {
    let mut registry = Registry::with_prefix("wasmplane");
    let plugin_proxies: Family<PluginLabels, Gauge> = Family::default();
    for (plugin, counts) in &gauges.plugins {
        for state in StateKind::ALL {
            let labels = [
                ("namespace", plugin.namespace.to_string()),
                ("name", plugin.name.to_string()),
                ("kind", plugin.kind.kind().to_owned()),
                ("state", state.as_str().to_owned()),
            ];
            plugin_proxies.get_or_create(&labels).set(i64::from(counts.of(state)));
        }
    }
    registry.register("plugin_proxies", "Proxies per plugin and state", plugin_proxies);
    let config_errors: Gauge = Gauge::default();
    config_errors.set(i64::try_from(gauges.config_errors).unwrap_or(i64::MAX));
    registry.register("config_errors", "Faults in manifests", config_errors);
    registry
}

/// The counts of the module room, read at each scrape.
struct ModuleCollector(Modules);

impl fmt::Debug for ModuleCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModuleCollector")
    }
}

impl Collector for ModuleCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        let help = "Attempts to get a module";
        let mut fetches = encoder.encode_descriptor("module_fetches", help, None, MetricType::Counter)?;
        for ((scheme, result), count) in &stats.fetches {
            let labels = [("scheme", scheme.as_str()), ("result", result.as_str())];
            ConstCounter::new(*count).encode(fetches.encode_family(&labels)?)?;
        }
        let help = "Attempts that failed, by reason";
        let mut failures = encoder.encode_descriptor("module_failures", help, None, MetricType::Counter)?;
        for ((scheme, reason), count) in &stats.failures {
            let labels = [("scheme", scheme.as_str()), ("reason", reason.as_str())];
            ConstCounter::new(*count).encode(failures.encode_family(&labels)?)?;
        }
        let help = "Bytes of the modules that were fetched";
        let mut bytes = encoder.encode_descriptor("module_fetched_bytes", help, None, MetricType::Counter)?;
        for (scheme, count) in &stats.fetched_bytes {
            ConstCounter::new(*count).encode(bytes.encode_family(&[("scheme", scheme.as_str())])?)?;
        }
        let help = "Modules that proxies fetched by digest";
        let mut served = encoder.encode_descriptor("module_served", help, None, MetricType::Counter)?;
        for (result, count) in
            [("whole", stats.served.whole), ("cut", stats.served.cut), ("unknown", stats.served.unknown)]
        {
            ConstCounter::new(count).encode(served.encode_family(&[("result", result)])?)?;
        }
        for (name, help, count) in [
            ("module_served_bytes", "Bytes of modules that proxies fetched by digest", stats.served.bytes),
            ("module_store_hits", "Modules read back from disk, without asking their source", stats.store_hits),
            ("module_store_removed", "Modules removed from disk because nobody used them", stats.store_removed),
        ] {
            ConstCounter::new(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let bytes = i64::try_from(stats.store_bytes).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("module_store_bytes", "What the stored modules take on disk", bytes),
            ("module_store_writable", "1 if modules can be stored, else 0", i64::from(stats.store_fault.is_none())),
        ] {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PluginId, PluginKind};
    use crate::rollout::{PluginState, PluginSummary};

    #[test]
    fn every_scrape_is_whole_however_many_scrape_at_once() {
        let metrics = Metrics { registry: Registry::with_prefix("wasmplane") };
        let mut summary = PluginSummary::default();
        summary.add(&PluginState { kind: StateKind::Programmed, revision: None, message: String::new() });
        let plugins = (0..20).map(|number| PluginId::new(PluginKind::WasmPlugin, "shop", &format!("p{number}")));
        let gauges = Gauges { plugins: plugins.map(|id| (id, summary.counts)).collect(), config_errors: 0 };
        let scrape = || {
            let text = metrics.encode(&gauges);
            text.lines().filter(|line| line.starts_with("wasmplane_plugin_proxies{") && line.ends_with(" 1")).count()
        };
        std::thread::scope(|scope| {
            let scrapers: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..50).map(|_| scrape()).min())).collect();
            for scraper in scrapers {
                assert_eq!(scraper.join().unwrap(), Some(20));
            }
        });
        assert!(metrics.encode(&gauges).ends_with("# EOF\n"));
    }
}
