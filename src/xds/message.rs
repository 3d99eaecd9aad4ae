//! The request messages of the two protocols, as the stream needs them.

use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use super::recorder::Names;
use super::session::{Protocol, Reaction, Session};
use super::size::{Asked, TooMuch, check_names};
use super::subscription::Subscription;
use crate::snapshot::{ResourceType, Snapshot};

/// What both requests say.
pub(super) struct Head<'a> {
    pub node: Option<&'a Node>,
    pub type_url: &'a str,
    /// The client's words, where the request is a NACK.
    pub error: Option<&'a str>,
    /// Whether the client says that it holds something from an earlier stream.
    pub holds_state: bool,
}

/// A request of one of the two protocols.
pub(super) trait DiscoveryMessage: prost::Message + Default + Unpin + 'static {
    const PROTOCOL: Protocol;

    fn head(&self) -> Head<'_>;

    /// The client's words, where it is a NACK.
    fn words(&mut self) -> Option<&mut String>;

    /// The nonce of the response that it answers, if it answers one.
    fn answers(&self) -> Option<u64>;

    /// What it asks for anew, no longer asks for, and holds from before; `None` where it is an answer and nothing else.
    fn asks(&self, before: Option<&Subscription>) -> Option<(Names, Names, usize)>;

    /// Whether the names in it are fewer and shorter than what a stream may ask for.
    fn check_names(&self, of: ResourceType, session: &Session) -> Result<(), TooMuch>;

    fn apply(&self, session: &mut Session, of: ResourceType, snapshot: Option<&Snapshot>, now: Instant) -> Reaction;
}

fn bytes_asked(session: &Session, of: impl IntoIterator<Item = ResourceType>) -> usize {
    of.into_iter().filter_map(|of| session.subscription(of)).map(Subscription::bytes).sum()
}

impl DiscoveryMessage for DiscoveryRequest {
    const PROTOCOL: Protocol = Protocol::Sotw;

    fn head(&self) -> Head<'_> {
        Head {
            node: self.node.as_ref(),
            type_url: &self.type_url,
            error: self.error_detail.as_ref().map(|error| error.message.as_str()),
            holds_state: !self.version_info.is_empty(),
        }
    }

    fn words(&mut self) -> Option<&mut String> {
        self.error_detail.as_mut().map(|error| &mut error.message)
    }

    fn answers(&self) -> Option<u64> {
        self.response_nonce.parse().ok()
    }

    fn asks(&self, before: Option<&Subscription>) -> Option<(Names, Names, usize)> {
        let same = |before: &Subscription| {
            self.resource_names.len() == before.names.len()
                && self.resource_names.iter().all(|name| before.names.contains(name.as_str()))
        };
        let is_answer = before.is_some_and(|before| self.resource_names.is_empty() || same(before));
        (!is_answer).then(|| {
            (Names::of(self.resource_names.iter()), Names::default(), usize::from(!self.version_info.is_empty()))
        })
    }

    /// Each request replaces the names of the one before.
    fn check_names(&self, of: ResourceType, session: &Session) -> Result<(), TooMuch> {
        let others = ResourceType::ALL.into_iter().filter(|other| *other != of);
        check_names(of, Asked { count: 0, bytes: bytes_asked(session, others) }, self.resource_names.iter())
    }

    fn apply(&self, session: &mut Session, of: ResourceType, snapshot: Option<&Snapshot>, now: Instant) -> Reaction {
        session.on_sotw_request(of, self, snapshot, now)
    }
}

impl DiscoveryMessage for DeltaDiscoveryRequest {
    const PROTOCOL: Protocol = Protocol::Delta;

    fn head(&self) -> Head<'_> {
        Head {
            node: self.node.as_ref(),
            type_url: &self.type_url,
            error: self.error_detail.as_ref().map(|error| error.message.as_str()),
            holds_state: !self.initial_resource_versions.is_empty(),
        }
    }

    fn words(&mut self) -> Option<&mut String> {
        self.error_detail.as_mut().map(|error| &mut error.message)
    }

    fn answers(&self) -> Option<u64> {
        self.response_nonce.parse().ok()
    }

    fn asks(&self, before: Option<&Subscription>) -> Option<(Names, Names, usize)> {
        let (subscribe, unsubscribe) = (&self.resource_names_subscribe, &self.resource_names_unsubscribe);
        let is_answer = before.is_some() && subscribe.is_empty() && unsubscribe.is_empty();
        (!is_answer)
            .then(|| (Names::of(subscribe.iter()), Names::of(unsubscribe.iter()), self.initial_resource_versions.len()))
    }

    fn check_names(&self, of: ResourceType, session: &Session) -> Result<(), TooMuch> {
        let count = session.subscription(of).map_or(0, |subscription| subscription.names.len());
        let asked = Asked { count, bytes: bytes_asked(session, ResourceType::ALL) };
        check_names(of, asked, self.resource_names_subscribe.iter())?;
        check_names(of, Asked::default(), self.initial_resource_versions.keys())?;
        check_names(of, Asked::default(), self.initial_resource_versions.values())
    }

    fn apply(&self, session: &mut Session, of: ResourceType, snapshot: Option<&Snapshot>, now: Instant) -> Reaction {
        session.on_delta_request(of, self, snapshot, now)
    }
}
