//! A certificate authority and what it signs, as PEM files in a folder of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate.
#[derive(Clone)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder, issuer };
        std::fs::write(authority.ca(), authority.issuer.pem()).unwrap();
        authority
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// For 127.0.0.1, in the files `<name>.pem` and `<name>.key`, which it replaces.
    pub fn sign(&self, name: &str) -> Identity {
        self.sign_until(name, SystemTime::now() + HOUR)
    }

    pub fn sign_until(&self, name: &str, not_after: SystemTime) -> Identity {
        self.sign_for(name, "127.0.0.1", not_after)
    }

    pub fn sign_for(&self, name: &str, host: &str, not_after: SystemTime) -> Identity {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        // One whose name is its issuer's would pass for self-signed.
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = (SystemTime::now() - 24 * HOUR).into();
        params.not_after = not_after.into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |suffix: &str| self.folder.path().join(format!("{name}.{suffix}"));
        let identity = Identity { cert: file("pem"), key: file("key") };
        replace(&identity.cert, &certificate.pem());
        replace(&identity.key, &key.serialize_pem());
        identity
    }
}

fn replace(path: &Path, text: &str) {
    let unfinished = path.with_extension("new");
    std::fs::write(&unfinished, text).unwrap();
    std::fs::rename(&unfinished, path).unwrap();
}
