//! `wasmplane explain`.

mod json;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use super::admin_client::{ServerArgs, block_on};
use super::release::{newest, parse_release};
use super::{Format, Outcome, parse_label};
use crate::compile::{self, Workload, select_offline};
use crate::model::EnvoyVersion;
use crate::plane;
use crate::protobuf::admin::{ExplainProxyRequest, Explanation};
use crate::sources::{self, Loaded, cross_check};

/// Which plugins a given proxy gets on which listener, in which order, and why the others do not apply.
///
/// From manifests alone (`--config`, `--namespace`, `--label`), or about a proxy of a running control plane (`--proxy`).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or folder with manifests; repeatable.
    #[arg(long, value_name = "PATH", required_unless_present = "proxy", num_args = 1..)]
    config: Vec<PathBuf>,
    /// The proxy's namespace.
    #[arg(long, value_name = "NS", required_unless_present = "proxy")]
    namespace: Option<String>,
    /// A label of the proxy; repeatable.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// The namespace whose plugins and templates reach every proxy.
    #[arg(long, value_name = "NS", default_value = "istio-system")]
    root_namespace: String,
    /// The Envoy release that the proxy runs, such as 1.36.4; it decides how plugins reach it. Default: the newest known.
    #[arg(long, value_name = "RELEASE", value_parser = parse_release)]
    envoy: Option<EnvoyVersion>,
    /// Asks the control plane at --server about this connected proxy, by the id that `wasmplane proxies` prints.
    #[arg(long, value_name = "ID", conflicts_with_all = ["config", "namespace", "labels", "root_namespace", "envoy"])]
    proxy: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Finds something when a resource is refused: the answer is then about the others.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let explanation = match &args.proxy {
        Some(id) => ask(&args.server, id)?,
        None => from_manifests(&args)?,
    };
    match args.format {
        Format::Json => println!("{:#}", json::of(&explanation)),
        Format::Text => print!("{}", text::of(&explanation)),
    }
    Ok(if explanation.rejected.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

fn ask(server: &ServerArgs, id: &str) -> anyhow::Result<Explanation> {
    let request = ExplainProxyRequest { id: id.to_owned() };
    let answer = block_on(async { Ok(server.connect().await?.explain_proxy(request).await) })?;
    let response = answer.map_err(|status| anyhow::anyhow!("--proxy {id}: {}", status.message()))?;
    response.into_inner().explanation.context("the control plane answered without an explanation")
}

fn from_manifests(args: &Args) -> anyhow::Result<Explanation> {
    if let Some(missing) = args.config.iter().find(|path| !path.exists()) {
        anyhow::bail!("--config {}: no such file or folder", missing.display());
    }
    let workload = Workload {
        namespace: args.namespace.clone().unwrap_or_default(),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        root_namespace: args.root_namespace.clone(),
    };
    Ok(explain(&workload, args.envoy.unwrap_or_else(newest), &sources::load(&args.config)))
}

/// The answer in the form of the design (section 1.1), for the newest Envoy.
pub fn answer(workload: &Workload, loaded: &Loaded) -> Value {
    json::of(&explain(workload, newest(), loaded))
}

fn explain(workload: &Workload, release: EnvoyVersion, loaded: &Loaded) -> Explanation {
    let proxy = workload.on(release);
    let (plugins, templates) = (loaded.plugins.values(), loaded.templates.values());
    let kind = select_offline(&proxy, &workload.root_namespace, plugins.clone(), templates);
    let mut view = plane::view_explanation(&compile::explain(&kind, &proxy, plugins), &proxy);
    let together = cross_check(loaded, &workload.root_namespace);
    let warnings: Vec<_> = loaded.warnings.iter().chain(&together).map(plane::warning).collect();
    view.warnings.splice(0..0, warnings);
    plane::say_once(&mut view.warnings);
    view.rejected = loaded.faults.iter().map(plane::fault).collect();
    view
}
