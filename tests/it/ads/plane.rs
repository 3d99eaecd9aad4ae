//! A control plane without the rest: serves one snapshot to everybody, and keeps what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasmplane::snapshot::{Extension, Extensions, Resource, ResourceType, Rope, Snapshot, Version};
use wasmplane::xds::{Connection, Fleet, Hello, Metrics, Options, Report, StreamId};

pub struct Plane {
    pub url: String,
    pub reports: mpsc::UnboundedReceiver<Report>,
    pub hellos: mpsc::UnboundedReceiver<Hello>,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<()>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
}

impl Plane {
    /// A control plane whose sources are not loaded yet.
    pub async fn empty() -> Self {
        Self::run(Options::default()).await
    }

    /// One whose port is run otherwise; its sources are not loaded yet.
    pub async fn run(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let snapshots = watch::Sender::new(None);
        let (report_to, reports) = mpsc::unbounded_channel();
        let (hello_to, hellos) = mpsc::unbounded_channel();
        let fleet = OneForAll { snapshots: snapshots.subscribe(), report_to, hello_to, next: AtomicU64::new(1) };
        let shutdown = CancellationToken::new();
        let serving = wasmplane::xds::serve(listener, Arc::new(fleet), options, Metrics::default(), shutdown.clone());
        Self { url, reports, hellos, shutdown, served: tokio::spawn(serving), snapshots }
    }

    pub async fn serving(resources: impl IntoIterator<Item = Resource>) -> Self {
        let plane = Self::empty().await;
        plane.publish(resources);
        plane
    }

    pub fn publish(&self, resources: impl IntoIterator<Item = Resource>) {
        self.snapshots.send_replace(Some(Arc::new(snapshot(resources))));
    }

    /// The next report, in words.
    pub async fn report(&mut self) -> String {
        match super::envoy::soon(self.reports.recv()).await.unwrap() {
            Report::Delivered(_, delivery) => {
                format!("{}@{} {:?}", delivery.resource.name, delivery.resource.version, delivery.outcome)
            }
            Report::Gone(_) => "gone".into(),
        }
    }
}

#[derive(Debug)]
struct OneForAll {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    report_to: mpsc::UnboundedSender<Report>,
    hello_to: mpsc::UnboundedSender<Hello>,
    next: AtomicU64,
}

impl Fleet for OneForAll {
    fn connect(&self, hello: Hello) -> Connection {
        self.hello_to.send(hello).unwrap();
        let id = StreamId(self.next.fetch_add(1, Ordering::Relaxed));
        Connection { id, snapshots: self.snapshots.clone(), reports: self.report_to.clone() }
    }
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
}

fn snapshot(resources: impl IntoIterator<Item = Resource>) -> Snapshot {
    let mut by_type: BTreeMap<ResourceType, BTreeMap<String, Arc<Resource>>> = BTreeMap::new();
    for resource in resources {
        by_type.entry(resource.resource_type).or_default().insert(resource.name.clone(), Arc::new(resource));
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
