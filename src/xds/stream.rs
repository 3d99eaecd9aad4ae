//! One discovery stream: a request body in, a response body out, a session between them.
//!
//! The stream is polled by the HTTP server itself: no task and no channel per stream, so that an idle proxy costs its
//! connection and its session, and a client that does not read is simply not polled.

use std::collections::VecDeque;
use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream as _;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};

use super::accept::Farewell;
use super::admission::{Admission, Admitted};
use super::delivery::{Outcome, Proofs};
use super::fleet::{Connection, Fleet, Hello, Service};
use super::message::{DiscoveryMessage, Head};
use super::metrics::Metrics;
use super::node::proxy_of;
use super::quiet::Quiet;
use super::recorder::{Recorder, Recordings};
use super::session::{Limits, Protocol, Reaction, Session};
use super::size::check_node;
use super::transfers::{Exchange, Line, Transfers};
use super::wire;
use super::words::presentable;
use crate::snapshot::{ResourceType, STAGING, Snapshot};

/// Room for the frames of one small response.
const FRAMES_AT_REST: usize = 4;

/// A client that opens a stream has something to ask.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(15);

/// Beside the words with which a client refuses a module that is staged, for whoever reads them in the recording.
const FETCHES: &str = "(staging: a module that it does not have yet it fetches now)";

/// How long the second request may take that tells an Envoy that comes back from one that starts.
const SECOND_REQUEST_WITHIN: Duration = Duration::from_millis(100);

/// What all streams of a server share.
pub(super) struct Shared {
    pub fleet: Arc<dyn Fleet>,
    pub proofs: Arc<Proofs>,
    pub limits: Limits,
    pub metrics: Metrics,
    pub admission: Admission,
    pub recordings: Recordings,
    pub fetches: Option<Exchange>,
}

/// Where a stream comes from, and its place here.
pub(super) struct Guest {
    pub peer: Option<SocketAddr>,
    pub farewell: Farewell,
    pub _admitted: Admitted,
}

/// A client that has introduced itself.
struct Client {
    session: Session,
    connection: Connection,
    snapshot: Option<Arc<Snapshot>>,
    /// To the module server, from the first snapshot on that has modules fetched.
    line: Option<(Line, WatchStream<Transfers>)>,
    node_id: String,
    recorder: Recorder,
}

impl Client {
    /// Opens the line, where this client is to fetch modules and has none yet.
    fn call_module_server(&mut self, fetches: Option<&Exchange>) {
        let has_staging = |snapshot: &Arc<Snapshot>| snapshot.listeners.contains_key(STAGING);
        if self.line.is_some() || !self.snapshot.as_ref().is_some_and(has_staging) {
            return;
        }
        self.line = fetches.map(Exchange::open).map(|line| {
            self.session.identify(line.token);
            let transfers = WatchStream::from_changes(line.transfers.clone());
            (line, transfers)
        });
    }
}

/// The response body of one discovery call.
pub(super) struct DiscoveryStream<R> {
    inbound: Streaming<R>,
    service: Service,
    shared: Arc<Shared>,
    guest: Guest,
    client: Option<Client>,
    /// A first request that leaves open whether its Envoy starts, until `wake` or the next request.
    first: Option<Box<R>>,
    /// Frames of responses already decided. Bounded by what the session allows without an answer.
    outgoing: VecDeque<Bytes>,
    wake: Option<Pin<Box<Sleep>>>,
    farewell: Quiet<WaitForCancellationFutureOwned>,
    /// How the call ends, once what is outgoing has been sent.
    ended: Option<Box<Status>>,
    is_over: bool,
    protocol: Protocol,
}

impl<R: DiscoveryMessage> DiscoveryStream<R> {
    pub fn new(inbound: Streaming<R>, service: Service, shared: Arc<Shared>, guest: Guest) -> Self {
        shared.metrics.stream_opened(R::PROTOCOL);
        Self {
            inbound,
            service,
            shared,
            client: None,
            first: None,
            outgoing: VecDeque::new(),
            wake: Some(Box::pin(tokio::time::sleep(FIRST_REQUEST_WITHIN))),
            farewell: Quiet::new(guest.farewell.said()),
            guest,
            ended: None,
            is_over: false,
            protocol: R::PROTOCOL,
        }
    }

    /// Makes all progress that can be made without waiting; `Err` ends the stream, with OK where the client has.
    fn advance(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        if self.outgoing.is_empty() && Pin::new(&mut self.farewell).poll(context).is_ready() {
            return Err(self.guest.farewell.status());
        }
        while self.outgoing.is_empty() {
            let has_progressed = self.poll_snapshot(context)?
                | self.poll_fetches(context)
                | self.poll_request(context)?
                | self.poll_wake(context)?;
            if !has_progressed {
                break;
            }
        }
        Ok(())
    }

    fn poll_snapshot(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        let Some(client) = &mut self.client else { return Ok(false) };
        match client.connection.snapshots.poll_take(context) {
            Poll::Ready(Some(snapshot)) => {
                refuse_outside_ads(self.service, &snapshot).inspect_err(|status| {
                    tracing::warn!(node = client.node_id, error = status.message(), "listeners not served");
                })?;
                let before = client.snapshot.replace(snapshot);
                client.call_module_server(self.shared.fetches.as_ref());
                let (before, now) = (before.as_deref(), Instant::now().into_std());
                let reaction = client.session.on_snapshot(before, client.snapshot.as_deref(), now);
                self.react(reaction);
                Ok(true)
            }
            Poll::Ready(None) => Err(Status::unavailable("the control plane is shutting down, connect again")),
            Poll::Pending => Ok(false),
        }
    }

    fn poll_fetches(&mut self, context: &mut Context<'_>) -> bool {
        let Some(client) = &mut self.client else { return false };
        let Some((line, transfers)) = &mut client.line else { return false };
        let Poll::Ready(Some(_)) = Pin::new(transfers).poll_next(context) else { return false };
        line.forget(|digest| client.session.is_done_with(digest));
        let transfers = line.transfers.borrow().clone();
        let now = Instant::now().into_std();
        let reaction = client.session.on_transfers(transfers, client.snapshot.as_deref(), now);
        self.react(reaction);
        true
    }

    fn poll_request(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        match Pin::new(&mut self.inbound).poll_next(context) {
            Poll::Ready(Some(Ok(mut request))) => {
                if let Some(words) = request.words() {
                    *words = presentable(words);
                }
                self.on_request(request).map(|()| true)
            }
            Poll::Ready(Some(Err(status))) => Err(status),
            Poll::Ready(None) => Err(Status::ok("")),
            Poll::Pending => Ok(false),
        }
    }

    fn poll_wake(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        let Some(wake) = &mut self.wake else { return Ok(false) };
        if wake.as_mut().poll(context).is_pending() {
            return Ok(false);
        }
        self.wake = None;
        if let Some(first) = self.first.take() {
            self.client = Some(self.introduce(&first.head(), true)?);
            return self.answer(&first).map(|()| true);
        }
        let Some(client) = &mut self.client else {
            let seconds = FIRST_REQUEST_WITHIN.as_secs();
            return Err(Status::deadline_exceeded(format!("no request within {seconds} s of opening the stream")));
        };
        let reaction = client.session.on_wake(client.snapshot.as_deref(), Instant::now().into_std());
        self.react(reaction);
        Ok(true)
    }

    /// Introduces the client, which may take its first two requests, and answers.
    fn on_request(&mut self, request: R) -> Result<(), Status> {
        if self.client.is_none() {
            let is_first = self.first.is_none();
            if is_first && self.leaves_open_whether_it_starts(&request) {
                self.first = Some(Box::new(request));
                self.wake = Some(Box::pin(tokio::time::sleep(SECOND_REQUEST_WITHIN)));
                return Ok(());
            }
            let is_new_process = !request.head().holds_state;
            match self.first.take() {
                Some(first) => {
                    self.client = Some(self.introduce(&first.head(), is_new_process)?);
                    self.answer(&first)?;
                }
                None => {
                    self.service.type_of(request.head().type_url)?;
                    self.client = Some(self.introduce(&request.head(), is_new_process)?);
                }
            }
        }
        self.answer(&request)
    }

    /// An Envoy that holds no clusters says so in its first request, whether it starts or comes back. One that comes
    /// back asks for its listeners in the same breath; one that starts waits for the clusters first.
    fn leaves_open_whether_it_starts(&self, request: &R) -> bool {
        let head = request.head();
        let is_clusters = head.type_url == ResourceType::Cluster.type_url();
        R::PROTOCOL == Protocol::Delta && self.service == Service::Ads && is_clusters && !head.holds_state
    }

    fn answer(&mut self, request: &R) -> Result<(), Status> {
        let head = request.head();
        let resource_type = self.service.type_of(head.type_url)?;
        let Some(client) = &mut self.client else { return Ok(()) };
        if let Some(node) = head.node.filter(|node| !node.id.is_empty() && node.id != client.node_id) {
            let message = format!("this stream belongs to node {:?}, not to {:?}", client.node_id, node.id);
            return Err(Status::invalid_argument(message));
        }
        let Some(resource_type) = resource_type else {
            // A type that is not served must not disturb the others (xDS protocol; D36).
            tracing::debug!(type_url = head.type_url, node = client.node_id, "type is not served");
            return Ok(());
        };
        let is_attempt = request.answers().is_some_and(|nonce| client.session.is_attempt(resource_type, nonce));
        if let Some(error) = head.error.filter(|_| !is_attempt) {
            tracing::warn!(node = client.node_id, type_url = head.type_url, error, "resources rejected");
        }
        request
            .check_names(resource_type, &client.session)
            .map_err(|too_much| Status::resource_exhausted(too_much.to_string()))?;
        if let Some(nonce) = request.answers() {
            let fetches = head.error.filter(|_| is_attempt).map(|words| format!("{words} {FETCHES}"));
            client.recorder.answered(resource_type, nonce, fetches.as_deref().or(head.error));
        }
        if let Some((subscribe, unsubscribe, holds)) = request.asks(client.session.subscription(resource_type)) {
            client.recorder.requested(resource_type, subscribe, unsubscribe, holds);
        }
        let now = Instant::now().into_std();
        let reaction = request.apply(&mut client.session, resource_type, client.snapshot.as_deref(), now);
        self.react(reaction);
        Ok(())
    }

    fn introduce(&self, head: &Head<'_>, is_new_process: bool) -> Result<Client, Status> {
        if let Some(Err(too_much)) = head.node.map(check_node) {
            return Err(Status::invalid_argument(too_much.to_string()));
        }
        let mut proxy = head
            .node
            .and_then(proxy_of)
            .ok_or_else(|| Status::invalid_argument("the first request of a stream must carry a node with an id"))?;
        if self.service == Service::Single(ResourceType::Listener) {
            // A listener got outside ADS cannot name ECDS by ADS, so that it must not carry empty chains either.
            proxy.capabilities.chain = false;
        }
        let (node_id, build) = (proxy.node_id.clone(), proxy.version);
        let connection = self.shared.fleet.connect(Hello {
            proxy,
            service: self.service,
            protocol: R::PROTOCOL,
            is_new_process,
            peer: self.guest.peer,
        });
        let mut session = Session::new(R::PROTOCOL, build, self.shared.proofs.clone(), self.shared.limits);
        if self.service != Service::Ads {
            session.stay_inline();
        }
        Ok(Client {
            session,
            line: None,
            snapshot: None,
            recorder: self.shared.recordings.begin(connection.id, node_id.clone(), self.service, R::PROTOCOL),
            connection,
            node_id,
        })
    }

    fn react(&mut self, reaction: Reaction) {
        let Some(client) = &self.client else { return };
        if let [first, ..] = &reaction.unanswered[..] {
            let (reason, count) =
                ("malformed, of a namespace out of reach, or of a plugin without module", reaction.unanswered.len());
            tracing::warn!(node = client.node_id, name = first, count, reason, "extension names are not answered");
        }
        if let Some(reason) = reaction.fell_back {
            tracing::warn!(node = client.node_id, reason, "modules travel inline");
            client.connection.fell_back(reason);
        }
        if let Some(reason) = reaction.stuck {
            if !reason.is_empty() {
                tracing::warn!(node = client.node_id, reason, "a change waits for a module that does not fit inline");
            }
            client.connection.stuck(reason);
        }
        for delivery in reaction.deliveries {
            match delivery.outcome {
                Outcome::Accepted => self.shared.metrics.acknowledged(delivery.resource.resource_type),
                Outcome::Refused { .. } => self.shared.metrics.refused(delivery.resource.resource_type),
            }
            client.connection.deliver(delivery);
        }
        for response in reaction.responses {
            self.shared.metrics.responded(response.resource_type);
            let frames = wire::frames(R::PROTOCOL, &response);
            let bytes = frames.iter().map(Bytes::len).sum();
            if bytes > self.shared.limits.max_response_bytes {
                self.shared.metrics.oversized(response.resource_type);
            }
            client.recorder.responded(&response, bytes);
            self.outgoing.extend(frames);
        }
        self.wake = reaction.wake_at.map(|at| Box::pin(tokio::time::sleep_until(Instant::from_std(at))));
    }
}

impl Service {
    /// The type that a request is about; `None` on ADS for one that is not served.
    fn type_of(self, type_url: &str) -> Result<Option<ResourceType>, Status> {
        match (self, type_url) {
            (Self::Single(own), "") => Ok(Some(own)),
            (Self::Single(own), url) if url == own.type_url() => Ok(Some(own)),
            (Self::Single(own), url) => {
                Err(Status::invalid_argument(format!("this service serves {}, not {url}", own.type_url())))
            }
            (Self::Ads, "") => Err(Status::invalid_argument("a request on ADS must have a type_url")),
            (Self::Ads, url) => Ok(ResourceType::from_type_url(url)),
        }
    }
}

/// Envoy refuses a listener that came from a separate LDS and names ECDS by ADS (design, section 5).
fn refuse_outside_ads(service: Service, snapshot: &Snapshot) -> Result<(), Status> {
    let mut references = snapshot.listeners.values().flat_map(|listener| &listener.references);
    if service == Service::Single(ResourceType::Listener)
        && references.any(|(used_type, _)| *used_type == ResourceType::ExtensionConfig)
    {
        return Err(Status::failed_precondition(
            "plugins apply to these listeners, and Envoy takes them only by ADS: use ADS (lds_config: {ads: {}})",
        ));
    }
    Ok(())
}

impl<R> Drop for DiscoveryStream<R> {
    fn drop(&mut self) {
        // The client's connection says goodbye to the fleet by itself.
        if let Some(client) = &self.client {
            client.recorder.ended(&Status::cancelled("the client has left"));
        }
        self.shared.metrics.stream_closed(self.protocol);
    }
}

impl<R: DiscoveryMessage> Body for DiscoveryStream<R> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        if this.ended.is_none() {
            this.ended = this.advance(context).err().map(Box::new);
        }
        if let Some(frame) = this.outgoing.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        let Some(status) = this.ended.take() else {
            // The answers of a start are many; a proxy that is up is sent one at a time.
            this.outgoing.shrink_to(FRAMES_AT_REST);
            return Poll::Pending;
        };
        this.is_over = true;
        if let Some(client) = this.client.take() {
            client.recorder.ended(&status);
        }
        let mut trailers = HeaderMap::new();
        if let Err(status) = status.add_header(&mut trailers) {
            tracing::warn!(%status, "status cannot be sent");
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}
