//! A control plane without the rest: serves one snapshot to everybody, and keeps what it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasmplane::snapshot::{Extension, Extensions, Resource, ResourceType, Rope, Snapshot, Version};
use wasmplane::xds::{
    Connection, Fleet, Hello, Metrics, Options, Recordings, Report, Said, SnapshotSender, StreamId, slot,
};

use crate::support::wait_until;

pub struct Plane {
    pub url: String,
    pub reports: mpsc::UnboundedReceiver<Report>,
    pub hellos: mpsc::UnboundedReceiver<Hello>,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<()>,
    pub metrics: Metrics,
    recordings: Recordings,
    /// Streams that have introduced themselves.
    streams: Arc<AtomicU64>,
    published: Arc<Published>,
}

impl Plane {
    /// A control plane whose sources are not loaded yet.
    pub async fn empty() -> Self {
        Self::run(Options::default()).await
    }

    /// One whose port is run otherwise; its sources are not loaded yet.
    pub async fn run(options: Options) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // As the control plane itself: a fleet comes back at once.
        let listener = socket.listen(4096).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (published, streams) = (Arc::<Published>::default(), Arc::<AtomicU64>::default());
        let (report_to, reports) = mpsc::unbounded_channel();
        let (hello_to, hellos) = mpsc::unbounded_channel();
        let fleet = OneForAll { published: published.clone(), report_to, hello_to, streams: streams.clone() };
        let (metrics, recordings) = (Metrics::default(), options.recordings.clone());
        let shutdown = CancellationToken::new();
        let serving = wasmplane::xds::serve(listener, Arc::new(fleet), options, metrics.clone(), shutdown.clone());
        let served = tokio::spawn(serving);
        Self { url, reports, hellos, shutdown, served, metrics, recordings, streams, published }
    }

    pub async fn serving(resources: impl IntoIterator<Item = Resource>) -> Self {
        let plane = Self::empty().await;
        plane.publish(resources);
        plane
    }

    /// What is served from now on; alive as long as somebody has use for it.
    pub fn publish(&self, resources: impl IntoIterator<Item = Resource>) -> Weak<Snapshot> {
        let snapshot = Arc::new(snapshot(resources));
        let published = Arc::downgrade(&snapshot);
        self.publish_snapshot(snapshot);
        published
    }

    pub fn publish_snapshot(&self, snapshot: Arc<Snapshot>) {
        let mut published = self.published.lock().unwrap();
        published.streams.iter().for_each(|stream| stream.send(snapshot.clone()));
        published.latest = Some(snapshot);
    }

    /// Waits until the streams of that node have asked so often, and answered so many responses.
    pub async fn until_heard(&self, node_id: &str, asked: usize, answered: usize) {
        let streams = || (1..=self.streams.load(Ordering::Relaxed)).map(StreamId).collect::<Vec<_>>();
        let is_request = |said: &Said| matches!(said, Said::Request { .. });
        let is_answered = |said: &Said| matches!(said, Said::Response { answer: Some(_), .. });
        wait_until("what the client has said", async || {
            let recordings = self.recordings.of(&streams(), node_id);
            let of_node = recordings.iter().filter(|recording| recording.node_id == node_id);
            let said: Vec<_> = of_node.flat_map(|recording| &recording.entries).map(|entry| &entry.said).collect();
            let count = |is: &dyn Fn(&Said) -> bool| said.iter().filter(|said| is(said)).count();
            (count(&is_request) >= asked && count(&is_answered) >= answered).then_some(())
        })
        .await;
    }

    /// A metric of the port, by its whole name with labels; 0 where it is not there.
    pub fn metric(&self, series: &str) -> u64 {
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// The reports of a client that has gone, in words.
    pub async fn reports_so_far(&mut self) -> Vec<String> {
        let mut reports = Vec::new();
        loop {
            match self.report().await {
                report if report == "gone" => return reports,
                report => reports.push(report),
            }
        }
    }

    /// The next report, in words.
    pub async fn report(&mut self) -> String {
        match super::envoy::soon(self.reports.recv()).await.unwrap() {
            Report::Delivered(_, delivery) => {
                format!("{}@{} {:?}", delivery.resource.name, delivery.resource.version, delivery.outcome)
            }
            Report::FellBack(_, reason) => format!("inline: {reason}"),
            Report::Stuck(_, reason) => format!("stuck: {reason}"),
            Report::Gone(_) => "gone".into(),
        }
    }
}

/// What is served, and who is served it.
type Published = Mutex<Serving>;

#[derive(Debug, Default)]
struct Serving {
    latest: Option<Arc<Snapshot>>,
    streams: Vec<SnapshotSender>,
}

#[derive(Debug)]
struct OneForAll {
    published: Arc<Published>,
    report_to: mpsc::UnboundedSender<Report>,
    hello_to: mpsc::UnboundedSender<Hello>,
    streams: Arc<AtomicU64>,
}

impl Fleet for OneForAll {
    fn connect(&self, hello: Hello) -> Connection {
        self.hello_to.send(hello).unwrap();
        let id = StreamId(1 + self.streams.fetch_add(1, Ordering::Relaxed));
        let (sender, snapshots) = slot();
        let mut published = self.published.lock().unwrap();
        published.latest.iter().for_each(|latest| sender.send(latest.clone()));
        published.streams.push(sender);
        Connection { id, snapshots, reports: self.report_to.clone() }
    }
}

/// A resource that says its own name and content (`a@1`), as a state of the world names none.
pub fn named(resource_type: ResourceType, name: &str, content: &str) -> Resource {
    resource(resource_type, name, &format!("{name}@{content}"))
}

/// A resource whose version is its content.
pub fn resource(resource_type: ResourceType, name: &str, content: &str) -> Resource {
    let mut body = Rope::new();
    body.string(1, content);
    Resource::new(resource_type, name, Version::of_text(content), body)
}

#[derive(Debug)]
struct Names(BTreeMap<String, Arc<Resource>>);

impl Extensions for Names {
    fn resolve(&self, name: &str) -> Option<Extension> {
        self.0.get(name).cloned().map(Extension::Known)
    }

    fn changed(&self, now: &Arc<dyn Extensions>) -> Option<Arc<[Arc<str>]>> {
        let changed = self.0.values().filter(|known| !now.still_says(known));
        Some(changed.map(|known| known.name.clone()).collect())
    }
}

fn snapshot(resources: impl IntoIterator<Item = Resource>) -> Snapshot {
    let mut by_type: BTreeMap<ResourceType, BTreeMap<String, Arc<Resource>>> = BTreeMap::new();
    for resource in resources {
        by_type.entry(resource.resource_type).or_default().insert(resource.name.to_string(), Arc::new(resource));
    }
    let mut take = |resource_type| by_type.remove(&resource_type).unwrap_or_default();
    Snapshot {
        listeners: take(ResourceType::Listener),
        clusters: take(ResourceType::Cluster),
        routes: take(ResourceType::Route),
        endpoints: take(ResourceType::Endpoint),
        extensions: Arc::new(Names(take(ResourceType::ExtensionConfig))),
    }
}
