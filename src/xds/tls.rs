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

    #[error(
        "--xds-tls-client-ca {}: the certificate of {subject} signs no others (it is none of an authority), so that no \
         client could come in with it: give that of {issuer}, which signed it",
        path.display()
    )]
    SignsNobody { path: PathBuf, subject: String, issuer: String },

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
        if let Some(reason) = chain.first().and_then(|leaf| out_of_time(leaf, SystemTime::now())) {
            // It is served all the same: the clock here may be the one that is wrong.
            tracing::warn!(cert = %files.cert.display(), reason, "proxies will refuse the certificate of the xDS port");
        }
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
        if let Some((subject, issuer)) = signs_nobody(&certificate) {
            return Err(TlsError::SignsNobody { path: path.to_owned(), subject, issuer });
        }
        roots.add(certificate).map_err(|source| TlsError::NotAnAuthority { path: path.to_owned(), source })?;
    }
    WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .map_err(|source| TlsError::Verifier { path: path.to_owned(), source })
}

/// Subject and issuer of a certificate by which nobody can be known: neither is it an authority's, nor is it its own issuer,
/// which one that is pinned may be.
fn signs_nobody(certificate: &[u8]) -> Option<(String, String)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let signs = certificate.is_ca() || certificate.subject() == certificate.issuer();
    (!signs).then(|| (certificate.subject().to_string(), certificate.issuer().to_string()))
}

/// What is wrong with the time in which a certificate is good.
fn out_of_time(certificate: &[u8], now: SystemTime) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let seconds = i64::try_from(now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()?;
    if seconds > validity.not_after.timestamp() {
        return Some(format!("it has expired: {}", validity.not_after));
    }
    (seconds < validity.not_before.timestamp()).then(|| format!("it is not valid yet: {}", validity.not_before))
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

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = named("ours");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_proxys_own_certificate_is_no_authority() {
        let (authority, key) = (authority(), KeyPair::generate().unwrap());
        let leaf = named("edge").signed_by(&key, &authority).unwrap();
        let pinned = named("alone").self_signed(&key).unwrap();
        let judge = |pem: String| verifier(Path::new("ca.pem"), pem.as_bytes()).err().map(|error| error.to_string());
        assert_eq!((judge(authority.pem()), judge(pinned.pem())), (None, None));
        let refused = judge(leaf.pem()).unwrap();
        assert!(
            refused.starts_with("--xds-tls-client-ca ca.pem: the certificate of CN=edge signs no others"),
            "{refused}"
        );
        assert!(refused.ends_with("give that of CN=ours, which signed it"), "{refused}");
        assert!(judge(authority.pem() + &leaf.pem()).is_some());
    }

    #[test]
    fn an_expired_certificate_is_told_of() {
        let (key, now) = (KeyPair::generate().unwrap(), SystemTime::now());
        let mut params = named("server");
        (params.not_before, params.not_after) = ((now - 2 * DAY).into(), (now - DAY).into());
        let expired = params.self_signed(&key).unwrap();
        assert!(out_of_time(expired.der(), now).unwrap().starts_with("it has expired: "));
        assert_eq!(out_of_time(expired.der(), now - DAY - DAY / 2), None);
        assert!(out_of_time(expired.der(), now - 3 * DAY).unwrap().starts_with("it is not valid yet: "));
    }
}
