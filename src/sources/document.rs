//! One document of a file, turned into what it declares: whose it is, what it says, what is wrong with it.
//!
//! Comes in: a node. Goes out: declarations by identity. Resources of other API groups are passed over.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::annotations::{self, Subject};
use super::fields::Field;
use super::metadata::{self, Metadata};
use super::report::Report;
use super::yaml::{Key, Node, Place, Value};
use super::{Finding, proxy_template, pull_secret, traffic_extension, wasm_plugin};
use crate::model::{Plugin, PluginId, PluginKind, ProxyTemplate, PullSecret, TemplateId};
use crate::protobuf::did_you_mean;

/// Which resource; equal in two places where both mean the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identity {
    Plugin(PluginId),
    Template(TemplateId),
    /// Namespace and name.
    Secret(String, String),
    /// A kind that this version does not read.
    Unread(String),
}

/// What a resource says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Plugin(Arc<Plugin>),
    Template(Arc<ProxyTemplate>),
    Secret(Arc<PullSecret>),
}

/// A resource as one document declares it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Declaration {
    /// Absent where the document does not say which resource it is.
    pub identity: Option<Identity>,
    /// Absent where there are faults.
    pub content: Option<Content>,
    /// The document again, as JSON on one line: what a restart needs to read it back. Empty for a Secret.
    pub text: String,
    pub place: Place,
    /// Where its fields are, for what is only found later.
    pub outline: Arc<Node>,
    pub faults: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

const GROUPS: [&str; 4] = ["extensions.istio.io", "maistra.io", "extension.tsb.tetrate.io", "wasmplane.io"];

/// Each kind of ours: group, version, kind, and what it is read as.
const KINDS: [(&str, &str, &str, Kind); 6] = [
    ("extensions.istio.io", "v1alpha1", "WasmPlugin", Kind::WasmPlugin),
    ("extensions.istio.io", "v1alpha1", "TrafficExtension", Kind::TrafficExtension),
    ("maistra.io", "v1", "ServiceMeshExtension", Kind::NotYet(Some(PluginKind::ServiceMeshExtension))),
    ("maistra.io", "v1alpha1", "ServiceMeshExtension", Kind::NotYet(Some(PluginKind::ServiceMeshExtension))),
    ("extension.tsb.tetrate.io", "v2", "WasmExtension", Kind::NotYet(None)),
    ("wasmplane.io", "v1alpha1", "ProxyTemplate", Kind::ProxyTemplate),
];

#[derive(Clone, Copy)]
enum Kind {
    WasmPlugin,
    TrafficExtension,
    ProxyTemplate,
    /// Known, and read by a later version.
    NotYet(Option<PluginKind>),
}

/// All resources of a document: itself, or the items of a list of them.
pub(super) fn declarations(file: &Path, document: &Node) -> Vec<Declaration> {
    let text = |key| document.get(key).and_then(Node::as_text);
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        return vec![refused(file, document, "", &no_resource(document))];
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let (Some(item_kind), Some(items)) = (kind.strip_suffix("List"), document.get("items"))
        && (api_version == "v1" || GROUPS.contains(&group))
    {
        return list(file, api_version, item_kind, items);
    }
    if (api_version, kind) == ("v1", "Secret") {
        return secret(file, document).into_iter().collect();
    }
    if !GROUPS.contains(&group) {
        tracing::debug!(file = %file.display(), api_version, kind, "resource of another API group passed over");
        return stranger(file, document, group, kind).into_iter().collect();
    }
    vec![ours(file, document, (group, version, kind))]
}

/// Whether `apiVersion` names a group of ours.
pub(super) fn is_of_our_groups(document: &Node) -> bool {
    let api_version = document.get("apiVersion").and_then(Node::as_text).unwrap_or_default();
    api_version.split_once('/').is_some_and(|(group, _)| GROUPS.contains(&group))
}

/// Says which of the two is missing, and what was written in its place.
fn no_resource(document: &Node) -> String {
    let Value::Map(entries) = &document.value else {
        return "is no Kubernetes resource: it must be an object with apiVersion and kind".to_owned();
    };
    let missing = ["apiVersion", "kind"].into_iter().filter(|key| document.get(key).and_then(Node::as_text).is_none());
    let told = missing.map(|wanted| {
        let slip = entries.iter().find(|(key, _)| key.text != wanted && key.text.eq_ignore_ascii_case(wanted));
        slip.map_or(wanted.to_owned(), |(key, _)| format!("{wanted} (here it is \"{}\")", key.text))
    });
    format!(
        "is no Kubernetes resource: apiVersion and kind must be text, and there is no {}",
        told.collect::<Vec<_>>().join(" and no ")
    )
}

fn list(file: &Path, api_version: &str, item_kind: &str, items: &Node) -> Vec<Declaration> {
    let Value::List(items) = &items.value else {
        return vec![refused(file, items, "", "the items of a list must be a list")];
    };
    let item = |item: &Node| {
        if item_kind.is_empty() || item.get("kind").is_some() {
            return declarations(file, item);
        }
        // The items of a typed list, as the API server answers, do not say their kind.
        declarations(file, &with_type(item, api_version, item_kind))
    };
    items.iter().flat_map(item).collect()
}

fn with_type(item: &Node, api_version: &str, kind: &str) -> Node {
    let mut item = item.clone();
    let place = item.place;
    if let Value::Map(entries) = &mut item.value {
        for (key, text) in [("apiVersion", api_version), ("kind", kind)] {
            let key = Key { text: key.to_owned(), place };
            entries.push((key, Node { value: Value::Text(text.to_owned()), place }));
        }
    }
    item
}

/// A group that is ours but for a slip of the finger must not be passed over in silence.
fn stranger(file: &Path, document: &Node, group: &str, kind: &str) -> Option<Declaration> {
    let is_our_kind = KINDS.iter().any(|(_, _, known, _)| *known == kind);
    let meant = GROUPS.iter().find(|known| strsim::damerau_levenshtein(known, group) <= 2)?;
    if !is_our_kind {
        return None;
    }
    let mut report = Report::new(file, document);
    report.warn("apiVersion", format!("passed over: the API group \"{group}\" is not ours, did you mean \"{meant}\"?"));
    Some(Declaration::new(document, None, None, report))
}

fn refused(file: &Path, document: &Node, field: &str, reason: &str) -> Declaration {
    let mut report = Report::new(file, document);
    report.fault(field, reason);
    Declaration::new(document, None, None, report)
}

fn ours(file: &Path, document: &Node, (group, version, kind): (&str, &str, &str)) -> Declaration {
    let mut report = Report::new(file, document);
    let of_kind: Vec<_> = KINDS.iter().filter(|known| (known.0, known.2) == (group, kind)).collect();
    let Some((.., known)) = of_kind.iter().find(|known| known.1 == version) else {
        let name = document.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Node::as_text);
        report.name([kind, name.unwrap_or_default()].join(" ").trim().to_owned(), None);
        if of_kind.is_empty() {
            let kinds = KINDS.iter().filter(|known| known.0 == group).map(|known| known.2);
            report.fault("kind", format!("{group} has no kind \"{kind}\"{}", did_you_mean(kind, kinds)));
        } else {
            let versions: Vec<_> = of_kind.iter().map(|known| known.1).collect();
            report.fault("apiVersion", format!("version \"{version}\" is not known, known is {}", versions.join(", ")));
        }
        return Declaration::new(document, None, None, report);
    };
    match known {
        Kind::NotYet(plugin_kind) => not_yet(document, kind, *plugin_kind, report),
        Kind::WasmPlugin => plugin(document, PluginKind::WasmPlugin, wasm_plugin::read, report),
        Kind::TrafficExtension => plugin(document, PluginKind::TrafficExtension, traffic_extension::read, report),
        Kind::ProxyTemplate => proxy_template(document, report),
    }
}

fn not_yet(document: &Node, kind: &str, plugin_kind: Option<PluginKind>, mut report: Report<'_>) -> Declaration {
    let text = |key| document.get("metadata").and_then(|metadata| metadata.get(key)).and_then(Node::as_text);
    let (namespace, name) = (text("namespace").unwrap_or("default"), text("name").unwrap_or_default());
    let id = plugin_kind.map(|plugin_kind| PluginId::new(plugin_kind, namespace, name));
    let resource = format!("{kind} {namespace}/{name}");
    report.name(resource.clone(), id);
    report.fault("kind", format!("{kind} is not supported yet by this version"));
    Declaration::new(document, Some(Identity::Unread(resource)), None, report)
}

/// How the `spec` of a plugin is read.
type Reader = fn(&PluginId, &Metadata<'_>, &Field<'_>, &mut Report<'_>) -> Option<Plugin>;

fn plugin(document: &Node, kind: PluginKind, read: Reader, mut report: Report<'_>) -> Declaration {
    let Some((metadata, spec)) = envelope(document, kind.kind(), &mut report) else {
        return Declaration::new(document, None, None, report);
    };
    let id = PluginId::new(kind, metadata.namespace, metadata.name);
    if metadata.is_sound {
        report.name(format!("{} {}/{}", kind.kind(), id.namespace, id.name), Some(id.clone()));
    }
    let plugin = spec.and_then(|spec| read(&id, &metadata, &spec, &mut report));
    let content = plugin.map(|plugin| Content::Plugin(plugin.into()));
    let identity = metadata.is_sound.then_some(Identity::Plugin(id));
    Declaration::new(document, identity, content, report)
}

fn proxy_template(document: &Node, mut report: Report<'_>) -> Declaration {
    let Some((metadata, spec)) = envelope(document, "ProxyTemplate", &mut report) else {
        return Declaration::new(document, None, None, report);
    };
    let id = TemplateId { namespace: metadata.namespace.into(), name: metadata.name.into() };
    annotations::read(metadata.annotations.as_ref(), Subject::ProxyTemplate, &mut report);
    let template = spec.and_then(|spec| proxy_template::read(&id, metadata.created, &spec, &mut report));
    let content = template.map(|template| Content::Template(template.into()));
    let identity = metadata.is_sound.then_some(Identity::Template(id));
    Declaration::new(document, identity, content, report)
}

/// Secrets that are no pull secrets are other people's: nothing is said of what is wrong with them.
fn secret(file: &Path, document: &Node) -> Option<Declaration> {
    let is_ours = pull_secret::is_pull_secret(document);
    let mut report = Report::new(file, document);
    report.name("Secret".to_owned(), None);
    let root = Field { path: String::new(), node: document };
    let root = if is_ours { root.object(&pull_secret::FIELDS, &mut report) } else { root.as_object() }?;
    let Metadata { namespace, name, is_sound, .. } = metadata::read(&root, &mut report);
    let identity = Identity::Secret(namespace.to_owned(), name.to_owned());
    if !name.is_empty() {
        report.name(identity.to_string(), None);
    }
    if !is_ours {
        if !is_sound {
            return None;
        }
        report = Report::new(file, document);
    }
    let secret = pull_secret::read(&root, &mut report);
    let content = secret.map(|secret| Content::Secret(secret.into()));
    Some(Declaration {
        // What is remembered on disk never holds credentials; the modules that they got are remembered.
        text: String::new(),
        ..Declaration::new(document, is_sound.then_some(identity), content, report)
    })
}

/// Metadata and `spec`. `None` where the document is no object.
fn envelope<'n>(document: &'n Node, kind: &str, report: &mut Report<'_>) -> Option<(Metadata<'n>, Option<Field<'n>>)> {
    report.name(kind.to_owned(), None);
    let root = Field { path: String::new(), node: document };
    let root = root.object(&["apiVersion", "kind", "metadata", "spec", "status"], report)?;
    let spec = root.required("spec", report);
    let metadata = metadata::read(&root, report);
    let is_told = !metadata.name.is_empty();
    report
        .name(if is_told { format!("{kind} {}/{}", metadata.namespace, metadata.name) } else { kind.to_owned() }, None);
    Some((metadata, spec))
}

/// The fields that the cross check speaks of.
const OUTLINED: [&str; 8] = ["selector", "match", "targetRefs", "lua", "wasm", "listeners", "envoy", "imagePullSecret"];

impl Declaration {
    fn new(document: &Node, identity: Option<Identity>, content: Option<Content>, report: Report<'_>) -> Self {
        let content = content.filter(|_| report.faults.is_empty());
        let text = if content.is_some() { json_text(document) } else { String::new() };
        let Report { faults, warnings, .. } = report;
        let fields: &[&str] = if content.is_some() { &OUTLINED } else { &[] };
        let outline = Arc::new(document.outline(fields));
        Self { identity, content, text, place: document.place, outline, faults, warnings }
    }
}

/// `document` as JSON that is YAML as well: what only JSON allows within quotes is escaped.
pub(super) fn json_text(document: &Node) -> String {
    let is_odd =
        |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let text = document.to_json().to_string();
    if !text.contains(is_odd) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_odd(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(id) => write!(f, "{} {}/{}", id.kind.kind(), id.namespace, id.name),
            Self::Template(id) => write!(f, "ProxyTemplate {id}"),
            Self::Secret(namespace, name) => write!(f, "Secret {namespace}/{name}"),
            Self::Unread(resource) => f.write_str(resource),
        }
    }
}
