//! The example's manifests and its plugin, as they are in `examples/hello/`, turned to the ports and folders of this run.

use std::path::Path;

const TEMPLATE: &str = include_str!("../../../examples/hello/proxytemplate.yaml");
const PLUGIN: &str = include_str!("../../../examples/hello/wasmplugin.yaml");
const MODULE: &str = include_str!("../../../examples/hello/plugin.wat");

/// What the example's bootstrap and manifests agree on.
pub const NAMESPACE: &str = "default";
pub const LABEL: (&str, &str) = ("app", "hello");

/// The example's ProxyTemplate, for an Envoy that listens on `port` and forwards to `upstream`, both on loopback.
pub fn proxy_template(port: u16, upstream: u16) -> String {
    TEMPLATE.replace("port: 8080", &format!("port: {port}")).replace("port: 9090", &format!("port: {upstream}"))
}

/// The example's WasmPlugin with another module file and another greeting. Its comments stay: people edit it next.
pub fn wasm_plugin(module: &Path, greeting: &str) -> String {
    PLUGIN
        .replace("/tmp/wasmplane/modules/hello.wasm", &module.display().to_string())
        .replace("greeting: hello", &format!("greeting: {greeting}"))
}

/// The example's plugin as a module.
pub fn module() -> Vec<u8> {
    wat::parse_str(MODULE).expect("a test assembles the example")
}

/// The example's plugin as people edit it.
pub fn module_source() -> &'static str {
    MODULE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> serde_json::Value {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn the_example_is_turned_to_this_run() {
        let template = yaml(&proxy_template(1234, 4321));
        assert_eq!(template["spec"]["listeners"][0]["port"], 1234);
        assert_eq!(template["spec"]["listeners"][0]["forwardTo"]["port"], 4321);
        let plugin = yaml(&wasm_plugin(Path::new("/w/modules/x.wasm"), "good day"));
        assert_eq!(plugin["spec"]["url"], "file:///w/modules/x.wasm");
        assert_eq!(plugin["spec"]["pluginConfig"]["greeting"], "good day");
    }

    #[test]
    fn the_example_selects_the_proxy_that_is_started() {
        for manifest in [TEMPLATE, PLUGIN] {
            let manifest = yaml(manifest);
            assert_eq!(manifest["metadata"]["namespace"], NAMESPACE);
            assert_eq!(manifest["spec"]["selector"]["matchLabels"][LABEL.0], LABEL.1);
        }
    }

    #[test]
    fn the_example_assembles() {
        assert!(module().starts_with(b"\0asm"));
    }
}
