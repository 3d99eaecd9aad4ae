//! Counts of streams, responses, ACKs and NACKs.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::admission::Refusal;
use super::session::Protocol;
use crate::snapshot::ResourceType;

type Labels = [(&'static str, &'static str); 1];

/// Metrics of this room.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    streams: Family<Labels, Gauge>,
    responses: Family<Labels, Counter>,
    acks: Family<Labels, Counter>,
    nacks: Family<Labels, Counter>,
    refused_streams: Family<Labels, Counter>,
    refused_connections: Counter,
    failed_handshakes: Counter,
    oversized: Family<Labels, Counter>,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("xds_streams", "Open discovery streams", self.streams.clone());
        registry.register("xds_responses", "Discovery responses sent", self.responses.clone());
        registry.register("xds_acks", "Resources acknowledged", self.acks.clone());
        registry.register("xds_nacks", "Resources refused", self.nacks.clone());
        registry.register("xds_streams_refused", "Streams not taken in", self.refused_streams.clone());
        registry.register("xds_connections_refused", "Connections not taken in", self.refused_connections.clone());
        registry.register(
            "xds_oversized_responses",
            "Discovery responses above --max-response-bytes, which could not be split",
            self.oversized.clone(),
        );
        registry.register("xds_tls_handshakes_failed", "TLS handshakes that failed", self.failed_handshakes.clone());
    }

    pub(super) fn stream_refused(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::TooMany => "cap",
            Refusal::TooFast => "rate",
        };
        self.refused_streams.get_or_create(&[("reason", reason)]).inc();
    }

    /// How many by now.
    pub(super) fn connection_refused(&self) -> u64 {
        self.refused_connections.inc() + 1
    }

    pub(super) fn handshake_failed(&self) {
        self.failed_handshakes.inc();
    }

    pub(super) fn stream_opened(&self, protocol: Protocol) {
        self.streams.get_or_create(&protocol_label(protocol)).inc();
    }

    pub(super) fn stream_closed(&self, protocol: Protocol) {
        self.streams.get_or_create(&protocol_label(protocol)).dec();
    }

    pub(super) fn responded(&self, resource_type: ResourceType) {
        self.responses.get_or_create(&type_label(resource_type)).inc();
    }

    pub(super) fn oversized(&self, resource_type: ResourceType) {
        self.oversized.get_or_create(&type_label(resource_type)).inc();
    }

    pub(super) fn acknowledged(&self, resource_type: ResourceType) {
        self.acks.get_or_create(&type_label(resource_type)).inc();
    }

    pub(super) fn refused(&self, resource_type: ResourceType) {
        self.nacks.get_or_create(&type_label(resource_type)).inc();
    }
}

fn protocol_label(protocol: Protocol) -> Labels {
    [(
        "protocol",
        match protocol {
            Protocol::Sotw => "sotw",
            Protocol::Delta => "delta",
        },
    )]
}

fn type_label(resource_type: ResourceType) -> Labels {
    [("type", resource_type.short_name())]
}
