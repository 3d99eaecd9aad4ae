//! `wasmplane diff`.

mod json;
mod text;

use std::path::PathBuf;

use self::text::LookedAt;
use super::admin_client::{ServerArgs, block_on};
use super::release::{newest, parse_release};
use super::{Format, Outcome};
use crate::compile::{MAX_WORKLOADS, representatives};
use crate::model::EnvoyVersion;
use crate::plane::{self, Subject};
use crate::protobuf::admin::{DiffManifestsRequest, DiffManifestsResponse, ManifestFile};
use crate::sources::{self, Loaded, Shared};

/// What a change of manifests would touch: proxies, listeners, resources, and which listeners would drain.
///
/// Compares with other manifests (`--against`), for one proxy of each kind that the manifests speak of, or with a
/// running control plane (`--server`), for the proxies that are connected. Exit code 0: nothing would change; 1:
/// something would (with --fail-on-drain: a listener would drain), or a manifest is refused.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or folder with all manifests as they would be; repeatable.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    config: Vec<PathBuf>,
    /// File or folder with the manifests as they are; repeatable. Without it a running control plane is asked.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    against: Vec<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// The namespace whose plugins and templates reach every proxy. A running control plane knows its own.
    #[arg(long, value_name = "NS", default_value = "istio-system", requires = "against")]
    root_namespace: String,
    /// The Envoy release that the proxies run, such as 1.36.4. Default: the newest known. Connected ones say their own.
    #[arg(long, value_name = "RELEASE", value_parser = parse_release, requires = "against")]
    envoy: Option<EnvoyVersion>,
    /// Finds something only when a listener would drain.
    #[arg(long)]
    fail_on_drain: bool,
    /// Shows plugin configuration, environment values and scripts.
    #[arg(long)]
    show_config: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    for (flag, paths) in [("--config", &args.config), ("--against", &args.against)] {
        if let Some(missing) = paths.iter().find(|path| !path.exists()) {
            anyhow::bail!("{flag} {}: no such file or folder", missing.display());
        }
    }
    let (diff, looked_at) = match args.against.is_empty() {
        true => (ask(&args)?, LookedAt::Connected),
        false => (compare(&args), LookedAt::Kinds),
    };
    match args.format {
        Format::Json => println!("{:#}", json::of(&diff)),
        Format::Text => print!("{}", text::of(&diff, looked_at)),
    }
    Ok(outcome(&diff, args.fail_on_drain))
}

fn outcome(diff: &DiffManifestsResponse, fail_on_drain: bool) -> Outcome {
    let is_drained = diff.proxies.iter().any(|proxy| !proxy.drains.is_empty());
    let is_changed = !diff.proxies.is_empty() || !diff.manifests.is_empty();
    let is_finding = if fail_on_drain { is_drained } else { is_changed };
    if is_finding || !diff.rejected.is_empty() { Outcome::Finding } else { Outcome::Fine }
}

fn compare(args: &Args) -> DiffManifestsResponse {
    let (old, new) = (sources::load(&args.against), sources::load(&args.config));
    let release = args.envoy.unwrap_or_else(newest);
    between(&old, &new, &args.root_namespace, release, args.show_config)
}

/// The difference for one proxy of each kind that the manifests speak of.
fn between(
    old: &Loaded,
    new: &Loaded,
    root_namespace: &str,
    release: EnvoyVersion,
    show_config: bool,
) -> DiffManifestsResponse {
    let plugins = old.plugins.values().chain(new.plugins.values());
    let templates = old.templates.values().chain(new.templates.values());
    let (workloads, number) = representatives(plugins, templates, root_namespace);
    let subjects: Vec<_> =
        workloads.iter().map(|workload| Subject { ids: Vec::new(), proxy: workload.on(release) }).collect();
    let mut diff = plane::diff(old, new, &subjects, root_namespace, show_config);
    if number > MAX_WORKLOADS {
        let left_out = number - MAX_WORKLOADS;
        diff.warnings.push(format!("{left_out} combinations of labels were not looked at, {MAX_WORKLOADS} were"));
    }
    diff
}

fn ask(args: &Args) -> anyhow::Result<DiffManifestsResponse> {
    let (texts, unreadable) = sources::read(&args.config);
    if let Some(first) = unreadable.first() {
        anyhow::bail!("{}: {}", first.file.display(), first.reason);
    }
    let Shared { texts, faults } = sources::share(texts);
    let file = |(path, text): (PathBuf, String)| ManifestFile { path: path.display().to_string(), text };
    let files = texts.into_iter().map(file).collect();
    let request = DiffManifestsRequest { files, show_config: args.show_config };
    let answer = block_on(async { Ok(args.server.connect().await?.diff_manifests(request).await) })?;
    let mut diff = answer.map_err(|status| anyhow::anyhow!("--server: {}", status.message()))?.into_inner();
    // What was not sent is told from here.
    let is_broken =
        |name: &str| faults.iter().any(|it| it.resource.is_empty() && it.file.display().to_string() == name);
    diff.rejected.retain(|remark| !is_broken(&remark.resource));
    diff.rejected.extend(faults.iter().map(plane::fault));
    Ok(diff)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "
apiVersion: wasmplane.io/v1alpha1
kind: ProxyTemplate
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  listeners: [{name: in, direction: INBOUND, port: 8080, protocol: HTTP}]
";

    fn plugin(spec: &str) -> String {
        format!(
            "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n\
             metadata: {{name: a, namespace: shop}}\nspec: {spec}\n"
        )
    }

    fn loaded(texts: &[&str]) -> Loaded {
        sources::load_texts([("a.yaml".into(), texts.concat().into_bytes())].into())
    }

    fn told(old: &[&str], new: &[&str], release: EnvoyVersion) -> DiffManifestsResponse {
        between(&loaded(old), &loaded(new), "root", release, false)
    }

    const NEW: EnvoyVersion = EnvoyVersion::new(1, 40, 0);
    const OLD: EnvoyVersion = EnvoyVersion::new(1, 36, 4);

    #[test]
    fn a_new_plugin_drains_where_each_plugin_is_a_filter_and_nowhere_else() {
        let with = plugin("{url: https://m.test/a.wasm}");
        for (release, drains, fail_on_drain) in [(NEW, 0, Outcome::Fine), (OLD, 1, Outcome::Finding)] {
            let diff = told(&[TEMPLATE], &[TEMPLATE, &with], release);
            let web = diff.proxies.iter().find(|proxy| proxy.labels.contains_key("app")).unwrap();
            assert_eq!((web.listeners.as_slice(), web.drains.len()), (&["in".to_owned()][..], drains), "{release}");
            assert_eq!(outcome(&diff, false), Outcome::Finding);
            assert_eq!(outcome(&diff, true), fail_on_drain, "{release}");
        }
    }

    #[test]
    fn the_same_manifests_in_other_words_change_nothing() {
        let one = plugin("{url: https://m.test/a.wasm, priority: 0}");
        let other = plugin("{phase: UNSPECIFIED_PHASE, url: \"https://m.test/a.wasm\"}");
        let diff = told(&[TEMPLATE, &one], &[TEMPLATE, &other], NEW);
        assert_eq!((diff.proxies.len(), diff.manifests.len()), (0, 0));
        assert!(diff.compared > 0);
        assert_eq!(outcome(&diff, false), Outcome::Fine);
        assert_eq!(text::of(&diff, LookedAt::Kinds), "nothing changes for 2 kinds of proxies\n");
    }

    #[test]
    fn configuration_stays_hidden_unless_it_is_asked_for() {
        let with = |key: &str| plugin(&format!("{{url: https://m.test/a.wasm, pluginConfig: {{key: {key}}}}}"));
        let (old, new) = (with("first"), with("second"));
        let (old, new) = (loaded(&[TEMPLATE, &old]), loaded(&[TEMPLATE, &new]));
        let shown = |show_config| between(&old, &new, "root", NEW, show_config);
        let hidden = format!("{:?} {}", shown(false), json::of(&shown(false)));
        assert!(!hidden.contains("first") && hidden.contains("(hidden)"), "{hidden}");
        assert_eq!(shown(true).manifests[0].fields[0].new, r#"{"key":"second"}"#);
    }

    #[test]
    fn what_is_refused_stays_as_it_was() {
        let good = plugin("{url: https://m.test/a.wasm}");
        let broken = plugin("{url: 7}");
        for wrong in [broken.as_str(), "---\n{"] {
            let diff = told(&[TEMPLATE, &good], &[TEMPLATE, wrong], NEW);
            assert_eq!((diff.proxies.len(), diff.rejected.len()), (0, 1), "{diff:?}");
            assert_eq!(outcome(&diff, true), Outcome::Finding);
        }
    }

    #[test]
    fn the_text_names_resources_listeners_and_drains() {
        let (old, new) = (plugin("{url: https://m.test/a.wasm}"), plugin("{url: https://m.test/b.wasm}"));
        assert_eq!(
            text::of(&told(&[TEMPLATE, &old], &[TEMPLATE, &new], NEW), LookedAt::Kinds),
            "WasmPlugin shop/a changed
  url: https://m.test/a.wasm -> https://m.test/b.wasm
proxies in shop, Envoy 1.40.0, chain
  changed extension extensions.istio.io/wasmplugin/shop.a
proxies in shop with app=web, Envoy 1.40.0, chain
  changed extension wasmplane/in/PreAuthN-BeforeRouter
  touches listener in, no drain
2 of 2 kinds of proxies would change, no listener drains
"
        );
        assert!(text::of(&told(&[TEMPLATE], &[], NEW), LookedAt::Kinds).contains("  listener in drains\n"));
    }
}
