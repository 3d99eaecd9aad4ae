//! The folder that the server watches: a template, the plugins, and edits of them.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::args::Args;

/// Which proxies an edited plugin is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    All,
    OnePercent,
    One,
}

impl Touched {
    pub fn proxies(self, args: &Args) -> usize {
        (0..args.proxies).filter(|index| self.has(*index)).count()
    }

    pub fn has(self, index: usize) -> bool {
        match self {
            Self::All => true,
            Self::OnePercent => index.is_multiple_of(100),
            Self::One => index == 0,
        }
    }

    /// The label by which the plugin selects.
    pub fn label(self) -> (&'static str, &'static str) {
        match self {
            Self::All => ("app", "web"),
            Self::OnePercent => ("canary", "yes"),
            Self::One => ("only", "one"),
        }
    }
}

impl fmt::Display for Touched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::OnePercent => "1 %",
            Self::One => "one",
        })
    }
}

/// The folders of one run; removed with it.
pub struct Manifests {
    folder: TempDir,
    edits: usize,
}

impl Manifests {
    /// A template and no plugins.
    pub fn bare() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for name in ["config", "modules", "data"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let manifests = Self { folder, edits: 0 };
        manifests.put("template", TEMPLATE)?;
        Ok(manifests)
    }

    pub fn write(args: &Args) -> anyhow::Result<Self> {
        let mut manifests = Self::bare()?;
        for index in 0..args.plugins {
            manifests.add(&format!("plugin-{index}"), args, Touched::All)?;
        }
        manifests.add("canary", args, Touched::OnePercent)?;
        manifests.add("only", args, Touched::One)?;
        Ok(manifests)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Another configuration for a plugin that is on these proxies.
    pub fn edit(&mut self, touched: Touched) -> anyhow::Result<()> {
        self.edits += 1;
        let name = match touched {
            Touched::All => "plugin-0",
            Touched::OnePercent => "canary",
            Touched::One => "only",
        };
        self.put_plugin(name, touched)
    }

    fn add(&mut self, name: &str, args: &Args, touched: Touched) -> anyhow::Result<()> {
        let module = module(name, args.module_bytes)?;
        fs::write(self.folder().join("modules").join(format!("{name}.wasm")), module)?;
        self.put_plugin(name, touched)
    }

    fn put_plugin(&self, name: &str, touched: Touched) -> anyhow::Result<()> {
        let module = self.folder().join("modules").join(format!("{name}.wasm"));
        let ((label, value), module, edits) = (touched.label(), module.display(), self.edits);
        self.put(
            name,
            &format!(
                "apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {{matchLabels: {{{label}: '{value}'}}}}
  url: file://{module}
  pluginConfig: {{edit: {edits}, header: x-{name}, value: a value of a usual length}}
"
            ),
        )
    }

    /// Renamed into place, as an editor or a ConfigMap does it.
    fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let config = self.folder().join("config");
        let written = config.join(format!(".{name}.new"));
        fs::write(&written, text)?;
        fs::rename(&written, config.join(format!("{name}.yaml"))).context("a manifest is renamed into place")
    }
}

/// Small, sound, and different for each plugin; padded to `bytes`.
fn module(name: &str, bytes: usize) -> anyhow::Result<Vec<u8>> {
    let text = format!(
        r#"(module (memory (export "memory") 1)
          (func (export "proxy_abi_version_0_2_1"))
          (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 0))
          (data (i32.const 1024) "{name}{padding}"))"#,
        padding = "x".repeat(bytes.min(60_000)),
    );
    let mut module = wat::parse_str(text)?;
    // Beyond what one page of memory holds: a custom section.
    let missing = bytes.saturating_sub(module.len() + 16);
    if missing > 0 {
        let section = [&[3][..], b"pad", &vec![b'x'; missing]].concat();
        module.push(0);
        prost::encoding::encode_varint(section.len() as u64, &mut module);
        module.extend(section);
    }
    Ok(module)
}

const TEMPLATE: &str = "apiVersion: wasmplane.io/v1alpha1
kind: ProxyTemplate
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  listeners:
  - {name: in-8080, direction: INBOUND, port: 8080, protocol: HTTP, forwardTo: {host: 127.0.0.1, port: 9090}}
";
