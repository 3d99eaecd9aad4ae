//! `wasmplane proxies`.

mod messages;

use serde_json::{Value, json};

use super::admin_client::{ServerArgs, block_on};
use super::{Format, Outcome, mode_name, state_name, table};
use crate::protobuf::admin::{ListProxiesRequest, ModuleDelivery, Proxy};

/// Connected proxies of a running control plane, and what runs on each.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The last messages of this proxy's streams instead, also after it has gone: names, versions, sizes, answers.
    #[arg(long, value_name = "ID")]
    messages: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    if let Some(id) = args.messages {
        return messages::run(&args.server, id, args.format);
    }
    let proxies = block_on(async {
        let mut client = args.server.connect().await?;
        Ok(client.list_proxies(ListProxiesRequest {}).await?.into_inner().proxies)
    })?;
    match args.format {
        Format::Text => print!("{}", text(&proxies)),
        Format::Json => println!("{:#}", json!({"proxies": proxies.iter().map(view).collect::<Vec<_>>()})),
    }
    Ok(Outcome::Fine)
}

fn text(proxies: &[Proxy]) -> String {
    if proxies.is_empty() {
        return "no proxy is connected\n".into();
    }
    let head = ["ID", "NAMESPACE", "ENVOY", "MODE", "MODULES", "STREAMS", "PLUGINS", "NOT PROGRAMMED"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for proxy in proxies {
        let others: Vec<_> = proxy
            .plugins
            .iter()
            .filter(|plugin| state_name(plugin.state()) != "Programmed")
            .map(|plugin| format!("{} {}", plugin.id, state_name(plugin.state())))
            .chain(proxy.errors.iter().cloned())
            .collect();
        rows.push(vec![
            proxy.id.clone(),
            proxy.namespace.clone(),
            if proxy.envoy_version.is_empty() { "unknown".into() } else { proxy.envoy_version.clone() },
            mode_name(proxy.mode()).into(),
            delivery_name(proxy.module_delivery()).into(),
            proxy.streams.join(", "),
            proxy.plugins.len().to_string(),
            others.join("; "),
        ]);
    }
    table::render(&rows)
}

fn delivery_name(delivery: ModuleDelivery) -> &'static str {
    match delivery {
        ModuleDelivery::Unspecified => "unknown",
        ModuleDelivery::Inline => "inline",
        ModuleDelivery::Digest => "digest",
    }
}

fn view(proxy: &Proxy) -> Value {
    let plugins: Vec<_> = proxy
        .plugins
        .iter()
        .map(|plugin| {
            json!({
                "id": plugin.id,
                "state": state_name(plugin.state()),
                "revision": plugin.revision,
                "message": plugin.message,
                "listeners": plugin.listeners,
            })
        })
        .collect();
    json!({
        "id": proxy.id,
        "nodeId": proxy.node_id,
        "name": proxy.name,
        "cluster": proxy.cluster,
        "namespace": proxy.namespace,
        "labels": proxy.labels.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "envoyVersion": proxy.envoy_version,
        "mode": mode_name(proxy.mode()),
        "streams": proxy.streams,
        "plugins": plugins,
        "errors": proxy.errors,
        "moduleDelivery": delivery_name(proxy.module_delivery()),
        "moduleDeliveryReason": proxy.module_delivery_reason,
    })
}
