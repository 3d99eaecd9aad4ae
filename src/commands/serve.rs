//! `wasmplane serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use super::network::NetworkArgs;
use super::{Outcome, folders, parse_duration};
use crate::modules::{STORE_MAX_BYTES, TagRefresh, unusable_proxies};
use crate::plane::DeliveryMode;
use crate::xds::{AdmissionLimits, TlsFiles};
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
    /// Where proxies fetch modules that they are told by digest.
    #[arg(long, value_name = "ADDRESS", env = "WASMPLANE_MODULES_LISTEN", default_value = "127.0.0.1:18001")]
    modules_listen: SocketAddr,
    /// What proxies are told of it, http://HOST:PORT. With https the proxies' bootstrap has the cluster
    /// wasmplane/modules. [default: derived from --modules-listen, for proxies on this machine]
    #[arg(long, value_name = "URL", env = "WASMPLANE_MODULES_URL")]
    modules_url: Option<String>,
    /// How modules reach proxies.
    #[arg(long, value_enum, env = "WASMPLANE_MODULE_DELIVERY", default_value_t)]
    module_delivery: DeliveryMode,
    /// Admin API, /livez, /readyz and /metrics.
    #[arg(long, value_name = "ADDRESS", env = "WASMPLANE_ADMIN_LISTEN", default_value = "127.0.0.1:18002")]
    admin_listen: SocketAddr,
    /// Module store and memory, one control plane per folder. [default: $XDG_STATE_HOME/wasmplane,
    /// else as root /var/lib/wasmplane, else ~/.local/state/wasmplane]
    #[arg(long, value_name = "PATH", env = "WASMPLANE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Folder in which file:// modules are read by the control plane itself, and watched. Repeatable.
    #[arg(long, value_name = "DIR", env = "WASMPLANE_MODULE_FILES", value_delimiter = ',')]
    module_files: Vec<PathBuf>,
    /// Stored modules that nobody uses go when all of them take more than this. Those in use stay.
    #[arg(long, value_name = "BYTES", env = "WASMPLANE_MODULE_STORE_MAX_BYTES", default_value_t = STORE_MAX_BYTES)]
    module_store_max_bytes: u64,
    /// Ask again which images tags mean, in such intervals, and roll out what has changed; report:5m only reports it.
    #[arg(long, value_name = "off|[report:]DURATION", env = "WASMPLANE_TAG_REFRESH", default_value = "off", value_parser = parse_tag_refresh)]
    tag_refresh: TagRefreshArg,
    #[command(flatten)]
    network: NetworkArgs,
    /// Larger discovery answers are split where the protocol allows it.
    #[arg(long, value_name = "BYTES", env = "WASMPLANE_MAX_RESPONSE_BYTES", default_value_t = 4 << 20)]
    max_response_bytes: usize,
    /// Certificate of the xDS port (PEM), followed by those that lead to its root. Read again when it changes.
    #[arg(long, value_name = "PATH", env = "WASMPLANE_XDS_TLS_CERT", requires = "xds_tls_key")]
    xds_tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "PATH", env = "WASMPLANE_XDS_TLS_KEY", requires = "xds_tls_cert")]
    xds_tls_key: Option<PathBuf>,
    /// Proxies must show a certificate that one of these authorities signed (PEM).
    #[arg(long, value_name = "PATH", env = "WASMPLANE_XDS_TLS_CLIENT_CA", requires = "xds_tls_cert")]
    xds_tls_client_ca: Option<PathBuf>,
    /// Listen beyond this machine in plain text.
    #[arg(long, env = "WASMPLANE_INSECURE_PLAINTEXT")]
    insecure_plaintext: bool,
    /// Discovery streams that may be open at once; a proxy has one.
    #[arg(long, value_name = "COUNT", env = "WASMPLANE_MAX_STREAMS",
          value_parser = positive::<usize>, default_value_t = AdmissionLimits::default().max_streams)]
    max_streams: usize,
    /// New discovery streams a second; those above are told to come again.
    #[arg(long, value_name = "COUNT", env = "WASMPLANE_MAX_STREAMS_PER_SECOND",
          value_parser = positive::<u32>, default_value_t = AdmissionLimits::default().max_streams_per_second)]
    max_streams_per_second: u32,
    /// Proxies are asked to connect anew at about this age (30m, 1h), so that they spread over replicas. [default: never]
    #[arg(long, value_name = "DURATION", env = "WASMPLANE_MAX_CONNECTION_AGE", value_parser = parse_duration)]
    max_connection_age: Option<Duration>,
}

/// For what reads and writes files when all else has ended. What it leaves half done is done again after a restart.
const LAST_WORK: Duration = Duration::from_secs(5);

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    telemetry::init();
    args.refuse_plaintext()?;
    let network = args.network.settings()?;
    network.check()?;
    unusable_proxies().iter().for_each(|said| tracing::warn!(said, "proxy of the environment"));
    let settings = plane::Settings {
        config: args.config,
        root_namespace: args.root_namespace,
        xds_listen: args.xds_listen,
        modules_listen: args.modules_listen,
        modules_url: args.modules_url,
        module_delivery: args.module_delivery,
        admin_listen: args.admin_listen,
        data_dir: args.data_dir.unwrap_or_else(default_data_dir),
        module_files: args.module_files,
        module_store_max_bytes: args.module_store_max_bytes,
        network,
        tag_refresh: args.tag_refresh.0,
        max_response_bytes: args.max_response_bytes,
        tls: args.xds_tls_cert.zip(args.xds_tls_key).map(|(cert, key)| TlsFiles {
            cert,
            key,
            client_ca: args.xds_tls_client_ca,
        }),
        admission: AdmissionLimits {
            max_streams: args.max_streams,
            max_streams_per_second: args.max_streams_per_second,
        },
        max_connection_age: args.max_connection_age,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let ran = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(cancel_on_signal(shutdown.clone()));
        plane::run(settings, shutdown).await
    });
    // Dropped, it would wait for a disk that does not answer as long as that takes.
    runtime.shutdown_timeout(LAST_WORK);
    ran.map(|()| Outcome::Fine)
}

/// A limit that shuts every proxy out is a mistake.
fn positive<T: FromStr<Err: Into<anyhow::Error>> + Default + PartialEq>(text: &str) -> anyhow::Result<T> {
    let number = text.parse().map_err(Into::into)?;
    anyhow::ensure!(number != T::default(), "at least 1");
    Ok(number)
}

/// `None`: off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TagRefreshArg(Option<TagRefresh>);

/// More often is a burden to registries, which count requests.
const MIN_TAG_REFRESH: Duration = Duration::from_secs(1);

fn parse_tag_refresh(text: &str) -> anyhow::Result<TagRefreshArg> {
    if text == "off" {
        return Ok(TagRefreshArg(None));
    }
    let (rolls_out, duration) = text.strip_prefix("report:").map_or((true, text), |duration| (false, duration));
    let every = duration.parse::<jiff::SignedDuration>().ok().and_then(|every| Duration::try_from(every).ok());
    match every.filter(|every| *every >= MIN_TAG_REFRESH) {
        Some(every) => Ok(TagRefreshArg(Some(TagRefresh { every, rolls_out }))),
        None => bail!("not off, a duration such as 5m or 1h, or report: and a duration; at least 1s"),
    }
}

impl Args {
    fn refuse_plaintext(&self) -> anyhow::Result<()> {
        if self.insecure_plaintext {
            return Ok(());
        }
        let is_xds_open = self.xds_tls_cert.is_none() && !self.xds_listen.ip().is_loopback();
        if is_xds_open {
            bail!(
                "--xds-listen {}: in plain text, anyone there could read plugin configurations: give --xds-tls-cert, \
                 -key and -client-ca, listen on loopback, or say --insecure-plaintext",
                self.xds_listen
            );
        }
        if self.module_delivery != DeliveryMode::Inline && !self.modules_listen.ip().is_loopback() {
            bail!(
                "--modules-listen {}: modules go out in plain text there: listen on loopback, maybe behind a server that \
                 speaks TLS and is named by --modules-url, or say --insecure-plaintext",
                self.modules_listen
            );
        }
        if !self.admin_listen.ip().is_loopback() {
            bail!(
                "--admin-listen {}: it speaks plain text and asks nobody who they are: listen on loopback, or say \
                 --insecure-plaintext",
                self.admin_listen
            );
        }
        Ok(())
    }
}

/// `$XDG_STATE_HOME/wasmplane` where that is said, as the XDG specification has it an absolute path. Else as root, and
/// for those without a home, `/var/lib/wasmplane`; for others `~/.local/state/wasmplane`.
fn default_data_dir() -> PathBuf {
    let is_root = rustix::process::geteuid().is_root();
    data_dir_of(folders::named("XDG_STATE_HOME"), folders::named("HOME"), is_root)
}

fn data_dir_of(state: Option<PathBuf>, home: Option<PathBuf>, is_root: bool) -> PathBuf {
    let of_home = home.filter(|_| !is_root).map(|home| home.join(".local/state"));
    state.or(of_home).unwrap_or_else(|| PathBuf::from("/var/lib")).join("wasmplane")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_keeps_its_data_in_var_lib_whatever_its_home_is_called() {
        let folder = |state: Option<&str>, home: Option<&str>, is_root| {
            data_dir_of(state.map(PathBuf::from), home.map(PathBuf::from), is_root).display().to_string()
        };
        assert_eq!(folder(None, Some("/var/root"), true), "/var/lib/wasmplane");
        assert_eq!(folder(None, Some("/root"), false), "/root/.local/state/wasmplane");
        assert_eq!(folder(None, None, false), "/var/lib/wasmplane");
        for is_root in [false, true] {
            assert_eq!(folder(Some("/state"), Some("/home/me"), is_root), "/state/wasmplane");
        }
    }

    #[test]
    fn tags_are_followed_only_when_told_and_not_too_often() {
        let parse = |text: &str| parse_tag_refresh(text).map(|TagRefreshArg(refresh)| refresh);
        let every = |seconds, rolls_out| Some(TagRefresh { every: Duration::from_secs(seconds), rolls_out });
        assert_eq!(parse("off").unwrap(), None);
        assert_eq!(parse("5m").unwrap(), every(300, true));
        assert_eq!(parse("1h30m").unwrap(), every(5400, true));
        assert_eq!(parse("report:90s").unwrap(), every(90, false));
        for text in ["", "on", "5", "0s", "-5m", "10ms", "report:", "report:off"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
