//! Where a module comes from and what its author may do, read off its imports and exports. Pure.

use super::contents::Contents;
use super::host;
use super::start::Start;

/// What a module without ABI marker is instead, in words.
pub fn origin(contents: &Contents) -> Option<&'static str> {
    let imports_from =
        |modules: &[&str]| contents.imports.iter().any(|import| modules.contains(&import.module.as_str()));
    let imports_function = |prefix: &str| contents.imports.iter().any(|import| import.name.starts_with(prefix));
    let has_section = |name: &str| contents.custom_sections.iter().any(|section| section == name);
    if is_wasm_bindgen(contents) {
        Some("a wasm-bindgen module for browsers and Node: build it with a proxy-wasm SDK and without wasm-bindgen")
    } else if imports_from(&["go", "gojs"]) {
        Some(
            "a Go program for browsers: build with GOOS=wasip1 GOARCH=wasm -buildmode=c-shared and the proxy-wasm Go SDK",
        )
    } else if has_section("linking") {
        Some("an object file that nobody has linked: link it (wasm-ld does)")
    } else if has_section("dylink") || has_section("dylink.0") {
        Some("a dynamic library: link it as a program or reactor")
    } else if imports_from(&["a"])
        || ["emscripten_", "invoke_", "__syscall_", "_emscripten"].into_iter().any(imports_function)
    {
        Some("an Emscripten program that expects its own JavaScript: build it with the proxy-wasm C++ SDK")
    } else if contents.function("_start").is_some() && imports_from(&["wasi_snapshot_preview1", "wasi_unstable"]) {
        Some("a WASI command-line program: build it with a proxy-wasm SDK")
    } else {
        None
    }
}

/// How to go on after "imports X, which …", where no Envoy provides it to modules of that ABI.
pub fn absent(module: &str, name: &str, abi: &str) -> String {
    if is_bindgen_import(module) {
        return "is wasm-bindgen's: a crate such as chrono or getrandom was built for browsers; turn that feature off, or \
                build for wasm32-wasip1"
            .to_owned();
    }
    match host::abis_with(module, name).as_slice() {
        [] => "Envoy does not provide".to_owned(),
        others => {
            let others = others.join(" and ").replace('_', ".");
            format!("Envoy provides to modules of ABI {others} only, and this is {}", abi.replace('_', "."))
        }
    }
}

fn is_wasm_bindgen(contents: &Contents) -> bool {
    contents.imports.iter().any(|import| is_bindgen_import(&import.module))
}

fn is_bindgen_import(module: &str) -> bool {
    module == "wbg" || module.starts_with("__wbindgen") || module.ends_with("_bg.js")
}

/// Of functions; data and custom sections cost nothing. From here on it shows that Envoy compiles them on each start.
const LARGE: usize = 6 << 20;

/// What can be seen from outside of a module that loads and then is of no use, or of little.
pub fn warnings(contents: &Contents) -> Vec<String> {
    let mut warnings = Vec::new();
    let has_entry = ["_start", "_initialize"].into_iter().any(|name| contents.function(name).is_some());
    // Compilers leave their name; what was written by hand has no main function to miss.
    let is_compiled = contents.custom_sections.iter().any(|section| section == "producers");
    if is_compiled && !has_entry && !contents.has_start {
        warnings.push(
            "nothing starts it: it has no _start, no _initialize and no start section, so an SDK's main function does \
             not run, and every request may be answered with 503"
                .to_owned(),
        );
    }
    if !contents.exports.iter().any(|export| export.name.starts_with("proxy_on_")) {
        warnings.push("it exports no proxy_on_… function: it will see no traffic".to_owned());
    }
    if let Start::MayCall(import) = &contents.start {
        warnings.push(format!(
            "its start section may call {}, and Envoy crashes if it does: run that code in _initialize instead",
            import
        ));
    }
    if contents.code_size > LARGE {
        let code = contents.code_size >> 20;
        warnings.push(format!("{code} MiB of code are slow to compile: expect Envoy to take seconds on each start"));
    }
    warnings
}
