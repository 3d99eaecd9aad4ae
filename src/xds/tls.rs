//! TLS on the xDS port: which certificate is shown, and whose clients' are believed.
//!
//! Comes in: paths of PEM files. Goes out: the [`ServerConfig`] for the next connection. The files are read again while
//! running; ones that will not do (a certificate whose key has not arrived yet, an empty file) leave what was there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConnection};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How often the files are looked at. Certificates are renewed hours before they end.
const LOOK: Duration = Duration::from_secs(1);
/// Hundreds of certificates; a bundle of the public ones has 250 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The PEM files of `--xds-tls-cert`, `--xds-tls-key` and `--xds-tls-client-ca`.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, then those between it and its root.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients must show a certificate that one of these signed; without it, anyone may connect.
    pub client_ca: Option<PathBuf>,
}

/// The files cannot be served from. Mended by whoever wrote them; looked at again when they change.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{flag} {}: cannot be read", path.display())]
    Unreadable { flag: &'static str, path: PathBuf, source: std::io::Error },

    #[error("{flag} {}: larger than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge { flag: &'static str, path: PathBuf },

    #[error("{flag} {}: no {what} in it (PEM is expected)", path.display())]
    Empty { flag: &'static str, path: PathBuf, what: &'static str },

    #[error("{flag} {}: not PEM: {cause}", path.display())]
    NotPem { flag: &'static str, path: PathBuf, cause: rustls::pki_types::pem::Error },

    #[error("--xds-tls-client-ca {}: not the certificate of an authority", path.display())]
    NotAnAuthority { path: PathBuf, source: rustls::Error },

    #[error("--xds-tls-client-ca {}: cannot be used", path.display())]
    Verifier { path: PathBuf, source: rustls::server::VerifierBuilderError },

    #[error("--xds-tls-cert {} and --xds-tls-key {} cannot be used together", cert.display(), key.display())]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
}

/// What is served now, and the files that it came from.
pub struct Tls {
    files: TlsFiles,
    config: Mutex<Arc<ServerConfig>>,
    /// Of the files' contents when they were last looked at, good or not.
    seen: Mutex<[u8; 32]>,
}

impl Tls {
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let config = contents.config(&files)?;
        Ok(Self { config: Mutex::new(Arc::new(config)), seen: Mutex::new(contents.hash()), files })
    }

    /// For the next connection; those that are there keep what they began with.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files until dropped.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let tls = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || tls.look());
            if let Err(error) = looked.await {
                tracing::error!(%error, "certificates could not be looked at: this is a bug in wasmplane");
            }
        }
    }

    fn look(&self) {
        match Contents::read(&self.files) {
            Ok(contents) if !self.is_new(contents.hash()) => {}
            Ok(contents) => match contents.config(&self.files) {
                Ok(config) => {
                    *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    tracing::info!(cert = %self.files.cert.display(), "certificates read again");
                }
                Err(error) => not_read(&error),
            },
            // A file that is being replaced is missing for a moment: told once for each kind of trouble.
            Err(error) => {
                if self.is_new(Sha256::digest(error.to_string()).into()) {
                    not_read(&error);
                }
            }
        }
    }

    fn is_new(&self, hash: [u8; 32]) -> bool {
        std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), hash) != hash
    }
}

fn not_read(error: &TlsError) {
    let error = in_words(error);
    tracing::error!(error, "certificates not read again: the ones from before stay in use");
}

fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            cert: read("--xds-tls-cert", &files.cert)?,
            key: read("--xds-tls-key", &files.key)?,
            client_ca: files.client_ca.as_deref().map(|path| read("--xds-tls-client-ca", path)).transpose()?,
        })
    }

    fn hash(&self) -> [u8; 32] {
        let client_ca = self.client_ca.as_deref().unwrap_or_default();
        let hashes: Vec<u8> = [&self.cert, &self.key, client_ca].into_iter().flat_map(Sha256::digest).collect();
        Sha256::digest(hashes).into()
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let chain = certificates("--xds-tls-cert", &files.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|cause| match cause {
            rustls::pki_types::pem::Error::NoItemsFound => {
                TlsError::Empty { flag: "--xds-tls-key", path: files.key.clone(), what: "private key" }
            }
            cause => TlsError::NotPem { flag: "--xds-tls-key", path: files.key.clone(), cause },
        })?;
        let builder = ServerConfig::builder();
        let builder = match files.client_ca.as_deref().zip(self.client_ca.as_deref()) {
            Some((path, pem)) => builder.with_client_cert_verifier(verifier(path, pem)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            source,
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would not be asked for its certificate again, however much has changed since; and an Envoy
        // connects once in days.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn verifier(path: &Path, pem: &[u8]) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("--xds-tls-client-ca", path, pem)? {
        roots.add(certificate).map_err(|source| TlsError::NotAnAuthority { path: path.to_owned(), source })?;
    }
    WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .map_err(|source| TlsError::Verifier { path: path.to_owned(), source })
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { flag, path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(TlsError::TooLarge { flag, path: path.to_owned() });
    }
    std::fs::read(path).map_err(unreadable)
}

fn certificates(flag: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|cause| TlsError::NotPem { flag, path: path.to_owned(), cause })?;
    if found.is_empty() {
        return Err(TlsError::Empty { flag, path: path.to_owned(), what: "certificate" });
    }
    Ok(found)
}

/// When the certificate that a client has shown ends; a connection must not outlive it.
pub(super) fn expiry(connection: &ServerConnection) -> Option<SystemTime> {
    let shown = connection.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(shown).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
