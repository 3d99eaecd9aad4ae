//! `wasmplane explain`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Format, Outcome};
use crate::compile::{self, ExplainedChain, ExplainedListener, Explanation, Workload};
use crate::model::PluginId;
use crate::sources::{self, Finding, Loaded};

/// Which plugins a given proxy gets on which listener, in which order, and why the others do not apply.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or folder with manifests; repeatable.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    config: Vec<PathBuf>,
    /// The proxy's namespace.
    #[arg(long, value_name = "NS")]
    namespace: String,
    /// A label of the proxy; repeatable.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// The namespace whose plugins and templates reach every proxy.
    #[arg(long, value_name = "NS", default_value = "istio-system")]
    root_namespace: String,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    match key.is_empty() {
        true => Err("a label's key is not empty".into()),
        false => Ok((key.to_owned(), value.to_owned())),
    }
}

/// Finds something when a resource is refused: the answer is then about the others.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    if let Some(missing) = args.config.iter().find(|path| !path.exists()) {
        anyhow::bail!("--config {}: no such file or folder", missing.display());
    }
    let workload = Workload {
        namespace: args.namespace,
        labels: args.labels.into_iter().collect::<BTreeMap<_, _>>(),
        root_namespace: args.root_namespace,
    };
    let loaded = sources::load(&args.config);
    match args.format {
        Format::Json => println!("{:#}", answer(&workload, &loaded)),
        Format::Text => print!("{}", text(&answer(&workload, &loaded))),
    }
    Ok(if loaded.faults.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

/// The answer in the form of the design (section 1.1).
pub fn answer(workload: &Workload, loaded: &Loaded) -> Value {
    let Explanation { listeners, skipped, problems } =
        compile::explain(workload, loaded.plugins.values(), loaded.templates.values());
    let skipped = skipped.iter().map(|(id, reason)| json!({"plugin": id.to_string(), "reason": reason}));
    let warnings = loaded.warnings.iter().map(|it| json!({"resource": resource(it), "reason": it.reason}));
    let problems = problems.iter().map(|it| json!({"resource": it.resource, "reason": it.reason}));
    let rejected = loaded.faults.iter().map(|it| json!({"resource": resource(it), "reason": reason(it)}));
    json!({
        "proxy": {"namespace": workload.namespace, "labels": workload.labels},
        "listeners": listeners.iter().map(listener).collect::<Vec<_>>(),
        "skipped": skipped.collect::<Vec<_>>(),
        "warnings": warnings.chain(problems).collect::<Vec<_>>(),
        "rejected": rejected.collect::<Vec<_>>(),
    })
}

fn listener(listener: &ExplainedListener) -> Value {
    json!({
        "name": listener.name,
        "direction": listener.direction.as_str(),
        "port": listener.port,
        "protocol": listener.protocol.as_str(),
        "http": ids(&listener.http),
        "network": ids(&listener.network),
        "chains": listener.chains.iter().map(chain).collect::<Vec<_>>(),
    })
}

fn chain(chain: &ExplainedChain) -> Value {
    json!({"name": chain.name, "http": ids(&chain.http), "network": ids(&chain.network)})
}

fn ids(ids: &[PluginId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// The resource, or else the file.
fn resource(finding: &Finding) -> String {
    match finding.resource.is_empty() {
        true => finding.file.display().to_string(),
        false => finding.resource.clone(),
    }
}

fn reason(finding: &Finding) -> String {
    match finding.field.is_empty() {
        true => finding.reason.clone(),
        false => format!("{}: {}", finding.field, finding.reason),
    }
}

/// The same answer for people.
fn text(answer: &Value) -> String {
    let mut out = String::new();
    let listeners = items(&answer["listeners"]);
    if listeners.is_empty() {
        out.push_str("no ProxyTemplate describes a listener of this proxy\n");
    }
    for listener in listeners {
        let word = |field: &str| listener[field].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "listener {} ({} {}, port {})",
            word("name"),
            word("direction"),
            word("protocol"),
            listener["port"]
        );
        write_order(&mut out, "http", &listener["http"]);
        write_order(&mut out, "network", &listener["network"]);
        write_differing_chains(&mut out, listener);
    }
    write_findings(&mut out, "does not apply", "plugin", &answer["skipped"]);
    write_findings(&mut out, "warnings", "resource", &answer["warnings"]);
    write_findings(&mut out, "rejected", "resource", &answer["rejected"]);
    out
}

fn write_order(out: &mut String, word: &str, plugins: &Value) {
    let plugins: Vec<_> = items(plugins).iter().filter_map(Value::as_str).collect();
    let plugins = if plugins.is_empty() { "none".to_owned() } else { plugins.join(" -> ") };
    let _ = writeln!(out, "  {word:<8} {plugins}");
}

/// Chains that carry less than the whole listener.
fn write_differing_chains(out: &mut String, listener: &Value) {
    for chain in items(&listener["chains"]) {
        for kind in ["http", "network"].into_iter().filter(|kind| chain[kind] != listener[kind]) {
            write_order(out, &format!("chain {}, {kind}:", chain["name"].as_str().unwrap_or_default()), &chain[kind]);
        }
    }
}

fn write_findings(out: &mut String, title: &str, subject: &str, findings: &Value) {
    let findings = items(findings);
    if findings.is_empty() {
        return;
    }
    let _ = writeln!(out, "{title}:");
    for finding in findings {
        let word = |field: &str| finding[field].as_str().unwrap_or_default();
        let _ = writeln!(out, "  {}: {}", word(subject), word("reason"));
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
