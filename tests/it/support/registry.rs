//! A real registry: Debian's `docker-registry`, in user space, open or guarded by passwords or tokens, plain or TLS.
//!
//! Who may in: `alice` everywhere, `bob` (tokens only) below `bob/`. [`Registry::publish`] writes an image straight into
//! the registry's storage, so that tests of pulling need no push.

mod binary;
mod image;
mod storage;
mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use wasmplane::commands::quickstart::LoggedProcess;

pub use self::image::{Image, image};
use self::tokens::Certificate;
pub use self::tokens::{ALICE_REFRESH_TOKEN, TokenServer};
use super::wait_until;

pub const ALICE: User = User { name: "alice", password: "alice-secret" };
pub const BOB: User = User { name: "bob", password: "bob-secret" };

/// bcrypt of the passwords, as cheap as can be.
const HTPASSWD: &str = "alice:$2b$04$LwOkEbJrucC5DlFO0tnVH.j/VUrKra8Gn6IdxkZbHLyAocyAIWDeq
bob:$2b$04$yAKClcCOLObm/xlW0W/x4.JJVjTLeI0SIG9US.tigXj7Q.gdluE2W
";

#[derive(Clone, Copy, Debug)]
pub struct User {
    pub name: &'static str,
    pub password: &'static str,
}

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Nobody,
    /// HTTP Basic: ALICE and BOB, both everywhere.
    Passwords,
    /// Bearer tokens of a [`TokenServer`], each for one repository.
    Tokens,
}

/// A registry on a free port of loopback, killed on drop.
pub struct Registry {
    binary: PathBuf,
    process: Option<LoggedProcess>,
    address: SocketAddr,
    folder: TempDir,
    certificate: Option<Certificate>,
    /// Gives out the tokens where those guard it.
    pub tokens: Option<TokenServer>,
    guard: Guard,
    starts: u32,
}

/// `None`, said loudly, where there is no `docker-registry` to be had; in CI that fails the test.
pub async fn registry(guard: Guard) -> Option<Registry> {
    start(guard, false).await
}

/// As [`registry`], with TLS by a certificate of its own: see [`Registry::ca_file`].
pub async fn tls_registry(guard: Guard) -> Option<Registry> {
    start(guard, true).await
}

async fn start(guard: Guard, with_tls: bool) -> Option<Registry> {
    let binary = binary::docker_registry().await?;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let tokens = if guard == Guard::Tokens { Some(TokenServer::start().await) } else { None };
    let mut registry = Registry {
        binary,
        process: None,
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        certificate: with_tls.then(Certificate::new),
        folder,
        tokens,
        guard,
        starts: 0,
    };
    registry.restart().await;
    Some(registry)
}

impl Registry {
    /// As references name it: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `127.0.0.1:PORT/repository:tag`.
    pub fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// The certificate of a TLS registry, which is its own authority.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("tls.pem")
    }

    fn storage(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A dockerconfigjson with this user's password for this registry.
    pub fn docker_config(&self, user: User) -> String {
        json!({"auths": {self.host(): {"username": user.name, "password": user.password}}}).to_string()
    }

    /// A Secret manifest with this user's password for this registry.
    pub fn secret(&self, namespace: &str, name: &str, user: User) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": self.docker_config(user)},
        })
        .to_string()
    }

    /// Puts an image there under a tag, or another one in its place.
    pub fn publish(&self, repository: &str, tag: &str, image: &Image) {
        storage::publish(&self.storage(), repository, tag, image);
    }

    /// Ends it; its storage stays.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await.expect("a child can be killed");
        }
    }

    /// Starts it, at the same address as before.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.starts += 1;
        let config = self.folder.path().join("config.json");
        // JSON is YAML.
        std::fs::write(&config, self.config().to_string()).expect("the temporary folder is writable");
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg(&config);
        let log = self.folder.path().join(format!("registry-{}.log", self.starts));
        let mut process = LoggedProcess::spawn("docker-registry", command, &log).expect("the binary can be run");
        self.address = wait_until("the registry's address", async || {
            if let Err(error) = process.ensure_running() {
                panic!("{error}\n{}", process.last_words(30));
            }
            listening(&process.log())
        })
        .await;
        self.process = Some(process);
    }

    fn config(&self) -> serde_json::Value {
        let folder = self.folder.path();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).expect("the temporary folder is writable");
            folder.join(name)
        };
        let mut http = json!({"addr": self.address.to_string(), "secret": "tests"});
        if let Some(certificate) = &self.certificate {
            let (certificate, key) = (write("tls.pem", &certificate.pem), write("tls.key", &certificate.key_pem));
            http["tls"] = json!({"certificate": certificate, "key": key});
        }
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": self.storage()}, "delete": {"enabled": true}},
            "http": http,
        });
        match (&self.guard, &self.tokens) {
            (Guard::Passwords, _) => {
                config["auth"] = json!({"htpasswd": {"realm": "tests", "path": write("htpasswd", HTPASSWD)}});
            }
            (Guard::Tokens, Some(tokens)) => {
                config["auth"] = json!({"token": {
                    "realm": tokens.realm(),
                    "service": tokens::SERVICE,
                    "issuer": tokens::ISSUER,
                    "rootcertbundle": write("tokens.pem", &tokens.certificate_pem()),
                }});
            }
            _ => {}
        }
        config
    }
}

/// It says where it listens: `msg="listening on 127.0.0.1:5000"`, with `, tls` behind it where it speaks that.
fn listening(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.rsplit_once("listening on ")?;
    rest.split(['"', ',']).next()?.parse().ok()
}
