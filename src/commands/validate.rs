//! `wasmplane validate`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Format, Outcome};
use crate::model::PullSecret;
use crate::sources::{Finding, Loaded, cross_check, load};

/// Checks manifests offline: every fault with file, line and field path.
///
/// Exit codes: 0 fine, warnings or not; 1 faults; 2 a path that does not exist.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files and folders; folders are read recursively.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// The namespace whose plugins and templates reach every proxy.
    #[arg(long, value_name = "NS", default_value = "istio-system")]
    pub root_namespace: String,
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    if let Some(missing) = args.paths.iter().find(|path| !path.exists()) {
        anyhow::bail!("{}: no such file or folder", missing.display());
    }
    let mut loaded = load(&args.paths);
    let together = cross_check(&loaded, &args.root_namespace);
    loaded.warnings.extend(together);
    let empty = args.paths.iter().filter(|path| is_without_manifests(path, &loaded)).map(|path| nothing(path));
    let empty: Vec<_> = empty.collect();
    loaded.warnings.extend(empty);
    loaded.warnings.sort();
    let out = &mut std::io::stdout().lock();
    match args.format {
        Format::Text => write!(out, "{}", text(&loaded))?,
        Format::Json => writeln!(out, "{:#}", json(&loaded))?,
    }
    Ok(if loaded.faults.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

/// Whether nothing at or below `path` says anything to us, good or bad.
fn is_without_manifests(path: &Path, loaded: &Loaded) -> bool {
    let mut origins = loaded.origins.values().map(|origin| &origin.file);
    let mut findings = loaded.faults.iter().chain(&loaded.warnings).map(|finding| &finding.file);
    !origins.any(|file| file.starts_with(path)) && !findings.any(|file| file.starts_with(path))
}

fn nothing(path: &Path) -> Finding {
    let reason = match path.is_dir() {
        true => "no manifests found: files named .yaml, .yml or .json with resources of ours",
        false => "no manifests found: the file holds no resource of ours",
    };
    Finding {
        file: path.to_owned(),
        line: 0,
        column: 0,
        resource: String::new(),
        plugin: None,
        field: String::new(),
        reason: reason.to_owned(),
    }
}

/// Secrets of other types are nothing of ours.
fn good_resources(loaded: &Loaded) -> usize {
    let is_pull_secret = |secret: &&Arc<PullSecret>| matches!(***secret, PullSecret::Registries(_));
    loaded.plugins.len() + loaded.templates.len() + loaded.secrets.values().filter(is_pull_secret).count()
}

fn text(loaded: &Loaded) -> String {
    let faults = loaded.faults.iter().map(|finding| ("error", finding));
    let mut findings: Vec<_> = faults.chain(loaded.warnings.iter().map(|finding| ("warning", finding))).collect();
    findings.sort_by_key(|(_, finding)| *finding);
    let lines: String = findings.into_iter().map(|(severity, finding)| line(severity, finding)).collect();
    let good = count(good_resources(loaded), "good resource");
    lines + &format!("{good}, {}, {}\n", count(loaded.faults.len(), "error"), count(loaded.warnings.len(), "warning"))
}

/// As compilers print it, so that editors can jump there.
fn line(severity: &str, finding: &Finding) -> String {
    let place = match (finding.line, finding.column) {
        (0, _) => String::new(),
        (line, 0) => format!("{line}:"),
        (line, column) => format!("{line}:{column}:"),
    };
    let parts = [finding.resource.as_str(), finding.field.as_str(), finding.reason.as_str()];
    let words = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    format!("{}:{place} {severity}: {words}\n", finding.file.display())
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The fields are fixed: editors and CI rely on them.
fn json(loaded: &Loaded) -> Value {
    let shown = |finding: &Finding| {
        json!({
            "file": finding.file,
            "line": finding.line,
            "column": finding.column,
            "resource": finding.resource,
            "field": finding.field,
            "reason": finding.reason,
        })
    };
    let all = |findings: &[Finding]| findings.iter().map(shown).collect::<Vec<_>>();
    json!({
        "resources": good_resources(loaded),
        "faults": all(&loaded.faults),
        "warnings": all(&loaded.warnings),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DockerConfig;

    fn loaded() -> Loaded {
        let finding = |line, field: &str, reason: &str| Finding {
            file: "conf/a.yaml".into(),
            line,
            column: line,
            resource: if line == 0 { String::new() } else { "WasmPlugin shop/x".into() },
            plugin: None,
            field: field.into(),
            reason: reason.into(),
        };
        Loaded {
            faults: vec![finding(0, "", "cannot be read"), finding(9, "spec.url", "is required")],
            warnings: vec![finding(3, "spec.selector", "selects all")],
            ..Loaded::default()
        }
    }

    #[test]
    fn findings_are_printed_in_the_order_of_the_file_with_a_summary() {
        assert_eq!(
            text(&loaded()),
            "conf/a.yaml: error: cannot be read\n\
             conf/a.yaml:3:3: warning: WasmPlugin shop/x: spec.selector: selects all\n\
             conf/a.yaml:9:9: error: WasmPlugin shop/x: spec.url: is required\n\
             0 good resources, 2 errors, 1 warning\n"
        );
    }

    #[test]
    fn a_good_pull_secret_is_a_good_resource_and_a_secret_of_another_type_is_none_of_ours() {
        let secret = |name: &str, secret| (("shop".to_owned(), name.to_owned()), Arc::new(secret));
        let secrets = [
            secret("pull", PullSecret::Registries(DockerConfig::default())),
            secret("tls", PullSecret::OfType("kubernetes.io/tls".to_owned())),
        ];
        let loaded = Loaded { secrets: secrets.into(), ..Loaded::default() };
        assert_eq!(text(&loaded), "1 good resource, 0 errors, 0 warnings\n");
    }

    #[test]
    fn json_has_faults_and_warnings_apart() {
        let json = json(&loaded());
        assert_eq!(
            json["faults"][1],
            json!({"file": "conf/a.yaml", "line": 9, "column": 9, "resource": "WasmPlugin shop/x",
                   "field": "spec.url", "reason": "is required"})
        );
        assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn warnings_alone_are_fine_a_fault_is_a_finding_and_a_missing_path_is_wrong_usage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let validate = |spec: &str| {
            let head = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a}\n";
            std::fs::write(&path, format!("{head}spec: {spec}\n")).unwrap();
            run(args(&path)).unwrap()
        };
        assert_eq!(validate("{url: r/a, selector: {}}"), Outcome::Fine);
        assert_eq!(validate("{url: ''}"), Outcome::Finding);
        assert!(run(args(&folder.path().join("none"))).is_err());
    }

    fn args(path: &Path) -> Args {
        Args { paths: vec![path.to_owned()], root_namespace: "istio-system".into(), format: Format::Json }
    }

    #[test]
    fn a_folder_without_manifests_is_fine_but_not_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret.yaml"), "{apiVersion: v1, kind: Secret}").unwrap();
        let loaded = load(&[folder.path().to_owned()]);
        assert!(is_without_manifests(folder.path(), &loaded));
        assert_eq!(run(args(folder.path())).unwrap(), Outcome::Fine);
        std::fs::write(folder.path().join("bad.yaml"), "a: [").unwrap();
        assert!(!is_without_manifests(folder.path(), &load(&[folder.path().to_owned()])));
    }
}
