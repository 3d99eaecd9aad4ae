//! `wasmplane serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use super::Outcome;
use crate::modules::STORE_MAX_BYTES;
use crate::{plane, telemetry};

/// Runs the control plane.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File or folder of manifests; watched. Repeatable.
    #[arg(long, required = true, value_name = "PATH", env = "WASMPLANE_CONFIG", value_delimiter = ',')]
    config: Vec<PathBuf>,
    /// Namespace whose plugins and templates reach all others.
    #[arg(long, value_name = "NAME", env = "WASMPLANE_ROOT_NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// Where proxies connect: ADS and the separate services.
    #[arg(long, value_name = "ADDRESS", env = "WASMPLANE_XDS_LISTEN", default_value = "127.0.0.1:18000")]
    xds_listen: SocketAddr,
    /// Admin API, /livez, /readyz and /metrics.
    #[arg(long, value_name = "ADDRESS", env = "WASMPLANE_ADMIN_LISTEN", default_value = "127.0.0.1:18002")]
    admin_listen: SocketAddr,
    /// Module store and memory. [default: $XDG_STATE_HOME/wasmplane, as root /var/lib/wasmplane]
    #[arg(long, value_name = "PATH", env = "WASMPLANE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Folder in which file:// modules are read by the control plane itself, and watched. Repeatable.
    #[arg(long, value_name = "DIR", env = "WASMPLANE_MODULE_FILES", value_delimiter = ',')]
    module_files: Vec<PathBuf>,
    /// Stored modules that nobody uses go when all of them take more than this. Those in use stay.
    #[arg(long, value_name = "BYTES", env = "WASMPLANE_MODULE_STORE_MAX_BYTES", default_value_t = STORE_MAX_BYTES)]
    module_store_max_bytes: u64,
    /// Larger discovery answers are split where the protocol allows it.
    #[arg(long, value_name = "BYTES", env = "WASMPLANE_MAX_RESPONSE_BYTES", default_value_t = 4 << 20)]
    max_response_bytes: usize,
    /// Accept proxies in plain text from beyond this machine.
    #[arg(long, env = "WASMPLANE_INSECURE_PLAINTEXT")]
    insecure_plaintext: bool,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    telemetry::init();
    let is_loopback = args.xds_listen.ip().is_loopback() && args.admin_listen.ip().is_loopback();
    if !is_loopback && !args.insecure_plaintext {
        bail!(
            "listening on {} and {} in plain text would let anyone read plugin configurations: \
             listen on loopback, or say --insecure-plaintext",
            args.xds_listen,
            args.admin_listen
        );
    }
    let settings = plane::Settings {
        config: args.config,
        root_namespace: args.root_namespace,
        xds_listen: args.xds_listen,
        admin_listen: args.admin_listen,
        data_dir: args.data_dir.unwrap_or_else(default_data_dir),
        module_files: args.module_files,
        module_store_max_bytes: args.module_store_max_bytes,
        max_response_bytes: args.max_response_bytes,
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(cancel_on_signal(shutdown.clone()));
        plane::run(settings, shutdown).await
    })?;
    Ok(Outcome::Fine)
}

/// `$XDG_STATE_HOME/wasmplane`, by default `~/.local/state/wasmplane`; as root `/var/lib/wasmplane`.
fn default_data_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HOME");
    if let Some(state) = set("XDG_STATE_HOME") {
        return state.join("wasmplane");
    }
    match home {
        Some(home) if home != std::path::Path::new("/root") => home.join(".local/state/wasmplane"),
        _ => PathBuf::from("/var/lib/wasmplane"),
    }
}

/// The first SIGINT or SIGTERM drains; a second one ends the process at once.
async fn cancel_on_signal(shutdown: CancellationToken) {
    signal().await;
    tracing::info!("shutting down");
    shutdown.cancel();
    signal().await;
    std::process::exit(1);
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupted = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => tokio::select! {
            _ = interrupted => {}
            _ = terminated.recv() => {}
        },
        Err(error) => {
            tracing::warn!(%error, "SIGTERM is not listened for");
            let _ = interrupted.await;
        }
    }
}
