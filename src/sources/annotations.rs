//! `wasmplane.io/…` annotations: what Istio's API has no field for. Each is checked as strictly as a field.
//!
//! Comes in: the annotations of a resource. Goes out: [`Annotations`]; those of other people are passed over.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fields::{Field, Object, shown_text};
use super::names::is_c_identifier;
use super::report::Report;
use crate::model::{FailStrategy, PluginType, ReloadBackoff, WasmOptions};
use crate::protobuf::did_you_mean;

const PREFIX: &str = "wasmplane.io/";

/// `"true"` takes the plugin out everywhere by a swap, without deleting it; `"false"` is as if absent.
const DISABLED: &str = "disabled";
/// `"true"` or `"false"`: Envoy's `PluginConfig.allow_on_headers_stop_iteration`, whether StopIteration from a headers
/// callback means what it says. For modules on HTTP.
const STOP_ITERATION: &str = "allow-on-headers-stop-iteration";
/// Such as `"proxy_log,proxy_get_property"`: the only host functions that the module may call.
const CAPABILITIES: &str = "allowed-capabilities";
/// Such as `"1s"` or `"1s..30s"`: how long Envoy waits before it makes a failed VM anew, at first and at most. For
/// modules with FAIL_RELOAD.
const RELOAD_BACKOFF: &str = "reload-backoff";

const WASM_ONLY: [&str; 3] = [STOP_ITERATION, CAPABILITIES, RELOAD_BACKOFF];

const BOOLS: [(&str, bool); 2] = [("false", false), ("true", true)];

/// The longest wait that anybody can mean.
const MAX_BACKOFF: Duration = Duration::from_secs(24 * 60 * 60);

/// What the annotations are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Wasm,
    Lua,
    ProxyTemplate,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Annotations {
    pub is_disabled: bool,
    pub options: WasmOptions,
}

/// Reads those of ours.
pub(super) fn read(annotations: Option<&Object<'_>>, subject: Subject, report: &mut Report<'_>) -> Annotations {
    let mut read = Annotations::default();
    for (key, field) in annotations.into_iter().flat_map(Object::all_entries) {
        match key.strip_prefix(PREFIX) {
            Some(name) => read.annotation(name, &field, subject, report),
            None => stranger(key, &field, report),
        }
    }
    read
}

/// A prefix that is ours but for a slip of the finger must not be passed over in silence.
fn stranger(key: &str, field: &Field<'_>, report: &mut Report<'_>) {
    let Some((prefix, name)) = key.split_once('/') else { return };
    if strsim::damerau_levenshtein(prefix, "wasmplane.io") <= 2 && (name == DISABLED || WASM_ONLY.contains(&name)) {
        report.warn(&field.path, format!("passed over: did you mean \"{PREFIX}{name}\"?"));
    }
}

impl Annotations {
    fn annotation(&mut self, name: &str, field: &Field<'_>, subject: Subject, report: &mut Report<'_>) {
        let known: &[&str] = match subject {
            Subject::Wasm => &[DISABLED, STOP_ITERATION, CAPABILITIES, RELOAD_BACKOFF],
            Subject::Lua => &[DISABLED],
            Subject::ProxyTemplate => &[],
        };
        if !known.contains(&name) {
            return report.fault(&field.path, unknown(name, known, subject));
        }
        let Some(text) = field.node.as_text() else {
            // Another scalar is told of with all annotations; `null` is not, as others may have it.
            if field.is_null() {
                report.fault(&field.path, "must be text, not null");
            }
            return;
        };
        match name {
            DISABLED => self.is_disabled = field.choice(&BOOLS, report).unwrap_or_default(),
            STOP_ITERATION => self.options.allow_on_headers_stop_iteration = field.choice(&BOOLS, report),
            CAPABILITIES => self.options.allowed_capabilities = capabilities(text, field, report),
            _ => {
                let wrong = |reason| report.fault(&field.path, reason);
                self.options.reload_backoff = reload_backoff(text).map_err(wrong).ok();
            }
        }
    }

    /// For what is accepted on a module of that type and fail strategy, and does nothing there.
    pub(super) fn warn_of_no_effect(&self, of: PluginType, fail_strategy: FailStrategy, report: &mut Report<'_>) {
        let path = |name: &str| format!("metadata.annotations.{PREFIX}{name}");
        if self.options.reload_backoff.is_some() && fail_strategy != FailStrategy::FailReload {
            let strategy = fail_strategy.as_str();
            report.warn(
                &path(RELOAD_BACKOFF),
                format!("has no effect: failStrategy is {strategy}, and only with FAIL_RELOAD a VM is made anew"),
            );
        }
        if self.options.allow_on_headers_stop_iteration.is_some() && of == PluginType::Network {
            report.warn(&path(STOP_ITERATION), "has no effect: a NETWORK plugin sees no headers");
        }
    }
}

fn unknown(name: &str, known: &[&str], subject: Subject) -> String {
    if subject == Subject::Lua && WASM_ONLY.contains(&name) {
        return "is for modules, and this is a script".to_owned();
    }
    if subject == Subject::ProxyTemplate {
        return "unknown annotation: a ProxyTemplate has none".to_owned();
    }
    let suggestion = match did_you_mean(name, known.iter().copied()) {
        none if none.is_empty() => format!("; known are {}", known.join(", ")),
        meant => meant.replacen('"', &format!("\"{PREFIX}"), 1),
    };
    format!("unknown annotation{suggestion}")
}

fn capabilities(text: &str, field: &Field<'_>, report: &mut Report<'_>) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for name in text.split(',').map(str::trim) {
        if !is_c_identifier(name) {
            let reason =
                "must be names of host functions with commas between them, such as proxy_log,proxy_get_property";
            report.fault(&field.path, format!("{reason}; {} is none", shown_text(name)));
            return None;
        }
        if !names.insert(name.to_owned()) {
            report.warn(&field.path, format!("names {name} twice"));
        }
    }
    Some(names)
}

/// `base` or `base..max`.
fn reload_backoff(text: &str) -> Result<ReloadBackoff, String> {
    let (base, max) = match text.split_once("..") {
        Some((base, max)) => (base, Some(max)),
        None => (text, None),
    };
    let base = length(base)?;
    let max = max.map(length).transpose()?;
    match max.filter(|max| *max < base) {
        Some(max) => Err(format!("the longest wait {max:?} is shorter than the first one {base:?}")),
        None => Ok(ReloadBackoff { base, max }),
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is no length of time, such as 500ms, 1s, 1.5s, 2m or 1s..30s", shown_text(text));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let millis = match &text[digits.len()..] {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3600e3,
        _ => return Err(wrong()),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || !digits.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return Err(wrong());
    }
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let length = Duration::try_from_secs_f64(number * millis / 1e3).map_err(|_| wrong())?;
    if !(Duration::from_millis(1)..=MAX_BACKOFF).contains(&length) {
        return Err(format!("{text} is out of range, allowed is 1ms to 24h"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Plugin, Program};
    use crate::sources::document::{Content, Declaration};
    use crate::sources::manifest;

    fn declaration(annotations: &str, spec: &str) -> Declaration {
        let text = format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata:\n  name: a\n  annotations:\n    \
             {annotations}\nspec: {spec}\n"
        );
        manifest::parse("a.yaml".as_ref(), text.as_bytes()).unwrap().declarations.remove(0)
    }

    fn plugin(annotations: &str, spec: &str) -> (Plugin, Vec<String>) {
        let declaration = declaration(annotations, spec);
        let Some(Content::Plugin(plugin)) = declaration.content else { panic!("{:#?}", declaration.faults) };
        let warnings = declaration.warnings.iter().map(|found| format!("{}: {}", found.field, found.reason));
        (plugin.as_ref().clone(), warnings.collect())
    }

    const WASM: &str = "{wasm: {url: r/a, failStrategy: FAIL_RELOAD}}";

    fn reason(annotations: &str, spec: &str) -> String {
        let declaration = declaration(annotations, spec);
        let [fault] = &declaration.faults[..] else { panic!("{declaration:#?}") };
        assert!(fault.field.starts_with("metadata.annotations."), "{fault:?}");
        assert_eq!(fault.line, 6);
        fault.reason.clone()
    }

    #[test]
    fn every_annotation_reaches_the_plugin() {
        let annotations = "{wasmplane.io/disabled: 'true', wasmplane.io/allow-on-headers-stop-iteration: 'false', \
                           wasmplane.io/allowed-capabilities: 'proxy_log, proxy_get_property', \
                           wasmplane.io/reload-backoff: 1.5s..2m, other.io/x: z}";
        let (plugin, warnings) = plugin(annotations, WASM);
        let Program::Wasm(program) = plugin.program else { panic!() };
        let names = ["proxy_get_property", "proxy_log"].map(str::to_owned);
        let backoff = ReloadBackoff { base: Duration::from_millis(1500), max: Some(Duration::from_secs(120)) };
        assert!(plugin.is_disabled);
        assert_eq!(
            program.options,
            WasmOptions {
                allow_on_headers_stop_iteration: Some(false),
                allowed_capabilities: Some(names.into()),
                reload_backoff: Some(backoff)
            }
        );
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn a_wrong_annotation_is_refused_with_what_would_be_right() {
        for (annotation, wanted) in [
            ("wasmplane.io/disabled: true", "must be text, not the boolean true: put it in quotes"),
            ("wasmplane.io/disabled:", "must be text, not null"),
            ("wasmplane.io/disabled: 'yes'", "\"yes\" is not a known value, allowed are false, true"),
            ("wasmplane.io/disable: 'true'", "unknown annotation, did you mean \"wasmplane.io/disabled\"?"),
            (
                "wasmplane.io/allowed-capabilities: 'a,,b'",
                "must be names of host functions with commas between them, such as proxy_log,proxy_get_property; \"\" is none",
            ),
            ("wasmplane.io/reload-backoff: 2s..1s", "the longest wait 1s is shorter than the first one 2s"),
            ("wasmplane.io/reload-backoff: 0.1ms", "0.1ms is out of range, allowed is 1ms to 24h"),
            ("wasmplane.io/reload-backoff: 1s..", "\"\" is no length of time, such as 500ms, 1s, 1.5s, 2m or 1s..30s"),
            ("wasmplane.io/reload-backoff: '5'", "\"5\" is no length of time, such as 500ms, 1s, 1.5s, 2m or 1s..30s"),
        ] {
            assert_eq!(reason(annotation, WASM), wanted, "{annotation}");
        }
    }

    #[test]
    fn what_only_modules_have_is_refused_on_a_script_and_a_script_can_be_disabled() {
        let lua = "{lua: {inlineCode: x}}";
        assert_eq!(reason("wasmplane.io/reload-backoff: 1s", lua), "is for modules, and this is a script");
        assert!(plugin("wasmplane.io/disabled: 'true'", lua).0.is_disabled);
    }

    #[test]
    fn what_does_nothing_is_warned_of() {
        let annotations = "{wasmplane.io/reload-backoff: 1s, wasmplane.io/allow-on-headers-stop-iteration: 'true', \
                           wasmplan.io/disabled: 'true'}";
        assert_eq!(
            plugin(annotations, "{wasm: {url: r/a, type: NETWORK}}").1,
            [
                "metadata.annotations.wasmplan.io/disabled: passed over: did you mean \"wasmplane.io/disabled\"?",
                "metadata.annotations.wasmplane.io/reload-backoff: has no effect: failStrategy is FAIL_CLOSE, and only with FAIL_RELOAD a VM is made anew",
                "metadata.annotations.wasmplane.io/allow-on-headers-stop-iteration: has no effect: a NETWORK plugin sees no headers",
            ]
        );
    }
}
