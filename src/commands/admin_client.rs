//! The admin API of a running control plane, as the commands that ask it need it.

use std::time::Duration;

use anyhow::Context as _;
use tonic::transport::{Channel, Endpoint};

use crate::protobuf::admin::admin_client::AdminClient;

/// Where a running control plane is asked.
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    /// Admin address of the control plane.
    #[arg(long, value_name = "ADDRESS", env = "WASMPLANE_SERVER", default_value = "127.0.0.1:18002")]
    server: String,
}

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A fleet of 10,000 proxies with 100 plugins each is some 100 MB.
const MAX_ANSWER_BYTES: usize = 256 << 20;

impl ServerArgs {
    /// Connects, or says that nobody is there.
    pub async fn connect(&self) -> anyhow::Result<AdminClient<Channel>> {
        let address = self.server.trim_start_matches("http://").trim_end_matches('/');
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("--server {}: want HOST:PORT", self.server))?
            .connect_timeout(CONNECT_WITHIN)
            .connect()
            .await
            .with_context(|| format!("--server {}: no control plane answers there", self.server))?;
        Ok(AdminClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
    }
}

/// Runs a command that talks to a server.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
