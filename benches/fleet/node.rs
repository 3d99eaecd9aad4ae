//! What a simulated Envoy says of itself.

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Extension, Node};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};

use crate::args::{Args, Mode};
use crate::class::Class;
use crate::manifests::Touched;

pub fn node(index: usize, args: &Args) -> Node {
    let id = format!("proxy-{index}.shop");
    let mut labels: Vec<(&str, &str)> = [Touched::All, Touched::OnePercent, Touched::One]
        .into_iter()
        .filter(|touched| touched.has(index))
        .map(Touched::label)
        .collect();
    if args.unique_labels {
        labels.push(("pod", &id));
    }
    let labels = structure(labels.into_iter().map(|(key, value)| (key, Kind::StringValue(value.to_owned()))));
    let metadata = [("NAMESPACE", Kind::StringValue("shop".into())), ("LABELS", Kind::StructValue(labels))];
    let extensions: &[&str] = match args.mode {
        Mode::Chain => &["envoy.filters.http.filter_chain", "envoy.wasm.runtime.v8", "envoy.filters.http.router"],
        Mode::Filter => &["envoy.wasm.runtime.v8", "envoy.filters.http.router"],
    };
    let version = SemanticVersion { major_number: 1, minor_number: 40, patch: 0 };
    let build = BuildVersion { version: Some(version), metadata: None };
    Node {
        // The null server writes by it.
        cluster: Class::of(index).to_string(),
        metadata: Some(structure(metadata.into_iter())),
        user_agent_name: "envoy".into(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
        extensions: extensions.iter().map(|name| extension(name)).collect(),
        id,
        ..Default::default()
    }
}

fn extension(name: &str) -> Extension {
    Extension { name: name.to_owned(), ..Default::default() }
}

fn structure<'a>(fields: impl Iterator<Item = (&'a str, Kind)>) -> Struct {
    Struct { fields: fields.map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) })).collect() }
}
