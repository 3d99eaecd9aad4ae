//! An Envoy on one stream, without a socket: sends requests as Envoy does and keeps what it accepts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;

use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::xds::transfers::Transfers;
use crate::xds::{Limits, Outcome, Proofs, Protocol, Reaction, Response, Session};

pub struct Client {
    pub session: Session,
    pub now: Instant,
    pub wake_at: Option<Instant>,
    /// Responses that the client has not read yet.
    pub inbox: VecDeque<Response>,
    pub responses: usize,
    /// ECDS names that were reported as silence.
    pub unanswered: Vec<String>,
    pub fell_back: Option<&'static str>,
    pub stuck: &'static str,
    protocol: Protocol,
    proofs: Arc<Proofs>,
    snapshot: Option<Snapshot>,
    types: BTreeMap<ResourceType, Side>,
    log: Vec<String>,
    reports: Vec<String>,
}

/// The client's side of one type.
#[derive(Default)]
pub struct Side {
    pub names: BTreeSet<String>,
    pub is_wildcard: bool,
    pub held: BTreeMap<String, Arc<Resource>>,
    /// Has named something on this stream, so that an empty list would mean nothing.
    has_named: bool,
    version_info: String,
    nonce: String,
}

impl Client {
    pub fn new(protocol: Protocol) -> Self {
        Self::of_fleet(protocol, Arc::default())
    }

    /// A client whose control plane knows already what others have accepted.
    pub fn of_fleet(protocol: Protocol, proofs: Arc<Proofs>) -> Self {
        Self {
            session: Session::new(protocol, None, proofs.clone(), Limits::default()),
            now: Instant::now(),
            wake_at: None,
            inbox: VecDeque::new(),
            responses: 0,
            unanswered: Vec::new(),
            fell_back: None,
            stuck: "",
            protocol,
            proofs,
            snapshot: None,
            types: BTreeMap::new(),
            log: Vec::new(),
            reports: Vec::new(),
        }
    }

    pub fn publish(&mut self, snapshot: Snapshot) {
        let before = self.snapshot.replace(snapshot);
        let reaction = self.session.on_snapshot(before.as_ref(), self.snapshot.as_ref(), self.now);
        self.take(reaction);
    }

    /// The module server has heard from the client.
    pub fn fetches(&mut self, transfers: Transfers) {
        let reaction = self.session.on_transfers(transfers, self.snapshot.as_ref(), self.now);
        self.take(reaction);
    }

    /// As a control plane that has just started.
    pub fn unpublish(&mut self) {
        self.snapshot = None;
    }

    /// Lets time pass, and wakes the session as often as it asks for it.
    pub fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(wake_at) = self.wake_at.filter(|wake_at| *wake_at <= until) {
            self.now = self.now.max(wake_at);
            self.wake();
        }
        self.now = until;
    }

    pub fn subscribe(&mut self, resource_type: ResourceType, names: &[&str]) {
        let is_first = !self.types.contains_key(&resource_type);
        let side = self.types.entry(resource_type).or_default();
        side.has_named |= !names.is_empty();
        side.is_wildcard |= (is_first && names.is_empty()) || names.contains(&"*");
        side.names.extend(names.iter().filter(|name| **name != "*").map(ToString::to_string));
        match self.protocol {
            Protocol::Sotw => self.send_names(resource_type),
            Protocol::Delta => {
                if resource_type == ResourceType::ExtensionConfig {
                    // Envoy asks for a name again only with a new subscription, which holds nothing.
                    side.held.retain(|name, _| !names.contains(&name.as_str()));
                }
                self.send_delta(resource_type, names, &[], None);
            }
        }
    }

    pub fn unsubscribe(&mut self, resource_type: ResourceType, names: &[&str]) {
        let side = self.types.get_mut(&resource_type).unwrap();
        side.is_wildcard &= !names.contains(&"*");
        side.names.retain(|name| !names.contains(&name.as_str()));
        let Side { is_wildcard, names: asked, held, .. } = side;
        held.retain(|name, _| *is_wildcard || asked.contains(name));
        match self.protocol {
            Protocol::Sotw => self.send_names(resource_type),
            Protocol::Delta => self.send_delta(resource_type, &[], names, None),
        }
    }

    /// Reads the oldest response and accepts it.
    pub fn ack(&mut self) {
        let response = self.inbox.pop_front().expect("a response to acknowledge");
        let side = self.types.get_mut(&response.resource_type).unwrap();
        side.accept(&response);
        self.answer(&response, None);
    }

    /// Reads the oldest response and refuses it.
    pub fn nack(&mut self, message: &str) {
        let response = self.inbox.pop_front().expect("a response to refuse");
        self.answer(&response, Some(message));
    }

    /// Accepts everything until nothing more comes.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            if self.inbox.is_empty() {
                return;
            }
            self.ack();
        }
        panic!("responses without end: {:?}", self.log);
    }

    /// Opens a new stream, as after a restart of the control plane.
    pub fn reconnect(&mut self) {
        let limits = self.session.limits;
        self.session = Session::new(self.protocol, None, self.proofs.clone(), limits);
        self.inbox.clear();
        self.wake_at = None;
        for resource_type in self.types.keys().copied().collect::<Vec<_>>() {
            let side = self.types.get_mut(&resource_type).unwrap();
            side.nonce.clear();
            side.has_named = !side.names.is_empty();
            match self.protocol {
                Protocol::Sotw => self.send_names(resource_type),
                Protocol::Delta => self.send_initial(resource_type),
            }
        }
    }

    /// All responses since the last call, in words: `cds a@1 b@1 -c`.
    pub fn received(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// All deliveries that the session reported since the last call: `a@1`, `b@1: message`.
    pub fn reported(&mut self) -> Vec<String> {
        std::mem::take(&mut self.reports)
    }

    /// What the client holds of a type: `a@1 b@2`.
    pub fn holds(&self, resource_type: ResourceType) -> String {
        let resources = self.types[&resource_type].held.values();
        resources.map(in_words).collect::<Vec<_>>().join(" ")
    }

    pub fn side(&self, resource_type: ResourceType) -> &Side {
        &self.types[&resource_type]
    }

    /// Sends a request of our own making.
    pub fn sotw(&mut self, resource_type: ResourceType, request: &DiscoveryRequest) {
        let reaction = self.session.on_sotw_request(resource_type, request, self.snapshot.as_ref(), self.now);
        self.take(reaction);
    }

    /// Sends a request of our own making.
    pub fn delta(&mut self, resource_type: ResourceType, request: &DeltaDiscoveryRequest) {
        let reaction = self.session.on_delta_request(resource_type, request, self.snapshot.as_ref(), self.now);
        self.take(reaction);
    }

    fn wake(&mut self) {
        let reaction = self.session.on_wake(self.snapshot.as_ref(), self.now);
        self.take(reaction);
    }

    fn answer(&mut self, response: &Response, error: Option<&str>) {
        let nonce = response.nonce.to_string();
        let side = self.types.get_mut(&response.resource_type).unwrap();
        side.nonce.clone_from(&nonce);
        if error.is_none()
            && let Some(version_info) = &response.version_info
        {
            side.version_info = version_info.to_string();
        }
        let error = error.map(|message| Status { message: message.into(), ..Status::default() });
        match self.protocol {
            Protocol::Sotw => {
                let request = DiscoveryRequest { error_detail: error, ..self.names_of(response.resource_type) };
                self.sotw(response.resource_type, &request);
            }
            Protocol::Delta => self.send_delta(response.resource_type, &[], &[], Some((nonce, error))),
        }
    }

    fn names_of(&self, resource_type: ResourceType) -> DiscoveryRequest {
        let side = &self.types[&resource_type];
        DiscoveryRequest {
            version_info: side.version_info.clone(),
            response_nonce: side.nonce.clone(),
            resource_names: side.asks_for(),
            ..DiscoveryRequest::default()
        }
    }

    fn send_names(&mut self, resource_type: ResourceType) {
        let request = self.names_of(resource_type);
        self.sotw(resource_type, &request);
    }

    fn send_initial(&mut self, resource_type: ResourceType) {
        let side = &self.types[&resource_type];
        let version = |(name, resource): (&String, &Arc<Resource>)| (name.clone(), resource.version.to_string());
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: side.asks_for(),
            initial_resource_versions: side.held.iter().map(version).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.delta(resource_type, &request);
    }

    fn send_delta(
        &mut self,
        resource_type: ResourceType,
        subscribe: &[&str],
        unsubscribe: &[&str],
        answer: Option<(String, Option<Status>)>,
    ) {
        let (response_nonce, error_detail) = answer.unwrap_or_default();
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe.iter().map(ToString::to_string).collect(),
            resource_names_unsubscribe: unsubscribe.iter().map(ToString::to_string).collect(),
            response_nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        self.delta(resource_type, &request);
    }

    fn take(&mut self, reaction: Reaction) {
        self.fell_back = self.fell_back.or(reaction.fell_back);
        self.stuck = reaction.stuck.unwrap_or(self.stuck);
        self.unanswered.extend(reaction.unanswered.iter().cloned());
        for delivery in &reaction.deliveries {
            let answer = match &delivery.outcome {
                Outcome::Accepted => String::new(),
                Outcome::Refused { message } => format!(": {message}"),
            };
            self.reports.push(in_words(&delivery.resource) + &answer);
        }
        self.log.extend(reaction.responses.iter().map(response_in_words));
        self.responses += reaction.responses.len();
        self.inbox.extend(reaction.responses);
        self.wake_at = reaction.wake_at;
    }
}

impl Side {
    fn asks_for(&self) -> Vec<String> {
        let star = (self.is_wildcard && self.has_named).then(|| "*".to_owned());
        self.names.iter().cloned().chain(star).collect()
    }

    fn accept(&mut self, response: &Response) {
        let is_full_state = response.version_info.is_some()
            && matches!(response.resource_type, ResourceType::Listener | ResourceType::Cluster);
        if is_full_state {
            self.held.clear();
        }
        for resource in &response.resources {
            if self.is_wildcard || self.names.contains(&*resource.name) {
                self.held.insert(resource.name.to_string(), resource.clone());
            }
        }
        for name in &response.removed {
            self.held.remove(&**name);
        }
    }
}

fn in_words(resource: &Arc<Resource>) -> String {
    format!("{}@{}", resource.name, resource.version)
}

fn response_in_words(response: &Response) -> String {
    let kind = match response.resource_type {
        ResourceType::Cluster => "cds",
        ResourceType::Endpoint => "eds",
        ResourceType::ExtensionConfig => "ecds",
        ResourceType::Listener => "lds",
        ResourceType::Route => "rds",
    };
    // By digest.
    let star = |resource: &Arc<Resource>| if resource.fetched.is_empty() { "" } else { "*" };
    let resources = response.resources.iter().map(|resource| in_words(resource) + star(resource));
    let removed = response.removed.iter().map(|name| format!("-{name}"));
    [kind.to_owned()].into_iter().chain(resources).chain(removed).collect::<Vec<_>>().join(" ")
}
