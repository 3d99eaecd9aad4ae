//! Assembles WebAssembly text: `cargo run --example assemble -- plugin.wat plugin.wasm`.
//!
//! The result is renamed into place, so that a control plane that watches the file never reads half of it.

use std::path::PathBuf;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(source), Some(module), None) = (paths.next(), paths.next(), paths.next()) else {
        anyhow::bail!("usage: assemble PLUGIN.wat PLUGIN.wasm");
    };
    let bytes = wat::parse_file(&source)?;
    let folder = module.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref());
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let unfinished = module.with_extension("wasm.part");
    std::fs::write(&unfinished, &bytes).with_context(|| unfinished.display().to_string())?;
    std::fs::rename(&unfinished, &module).with_context(|| module.display().to_string())?;
    println!("{}: {} bytes", module.display(), bytes.len());
    Ok(())
}
