//! Flags of every command that fetches or publishes modules: which servers, and how they are spoken to.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::model::HostPort;
use crate::modules::{AddressRules, Certificate, Network, NetworkSettings};

#[derive(Clone, Debug, Default, clap::Args)]
pub struct NetworkArgs {
    /// Registry that is spoken to in plain HTTP; without a port, at any port. Repeatable. Those on this machine always
    /// are, unless --registry-ca names them.
    #[arg(long, value_name = "HOST[:PORT]", env = "WASMPLANE_INSECURE_REGISTRY", value_delimiter = ',')]
    insecure_registry: Vec<HostPort>,
    /// File of certificates (PEM) that are trusted for this registry beside the system's. Repeatable.
    #[arg(long, value_name = "HOST[:PORT]=FILE", env = "WASMPLANE_REGISTRY_CA", value_delimiter = ',', value_parser = parse_ca)]
    registry_ca: Vec<(HostPort, PathBuf)>,
    /// Fetch no module from private or loopback addresses. Link-local and metadata addresses are never dialled.
    #[arg(long, env = "WASMPLANE_MODULE_DENY_PRIVATE")]
    module_deny_private: bool,
    /// Address range that modules may be fetched from in spite of --module-deny-private. Repeatable.
    #[arg(long, value_name = "CIDR", env = "WASMPLANE_MODULE_ALLOW_ADDRESS", value_delimiter = ',')]
    module_allow_address: Vec<Network>,
}

impl NetworkArgs {
    /// Reads the certificates.
    pub fn settings(&self) -> anyhow::Result<NetworkSettings> {
        let mut registry_cas = Vec::new();
        for (registry, path) in &self.registry_ca {
            anyhow::ensure!(
                !self.insecure_registry.iter().any(|insecure| insecure.covers(registry)),
                "--registry-ca {registry}: --insecure-registry says that it speaks plain HTTP: leave out one of them"
            );
            registry_cas.push((registry.clone(), certificates(path)?));
        }
        let rules = AddressRules { deny_private: self.module_deny_private, allowed: self.module_allow_address.clone() };
        Ok(NetworkSettings { rules, insecure_registries: self.insecure_registry.clone(), registry_cas })
    }
}

fn certificates(path: &PathBuf) -> anyhow::Result<Vec<Certificate>> {
    let flag = || format!("--registry-ca {}", path.display());
    let pem = std::fs::read(path).with_context(flag)?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(anyhow::Error::from).with_context(flag)?;
    anyhow::ensure!(!certificates.is_empty(), "{}: holds no certificate in PEM", flag());
    Ok(certificates)
}

fn parse_ca(text: &str) -> anyhow::Result<(HostPort, PathBuf)> {
    let (registry, file) = text.split_once('=').context("not HOST[:PORT]=FILE")?;
    anyhow::ensure!(!file.is_empty(), "not HOST[:PORT]=FILE");
    Ok((registry.parse()?, PathBuf::from(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_registry_is_not_both_tls_and_plain_http() {
        let args = |insecure: &str, trusted: &str| NetworkArgs {
            insecure_registry: vec![insecure.parse().unwrap()],
            registry_ca: vec![(trusted.parse().unwrap(), "/no/such.pem".into())],
            ..NetworkArgs::default()
        };
        let said = |insecure, trusted| format!("{:#}", args(insecure, trusted).settings().unwrap_err());
        for (insecure, trusted) in [("r.test", "r.test"), ("r.test", "r.test:5000"), ("r.test:5000", "r.test:5000")] {
            let said = said(insecure, trusted);
            assert!(said.starts_with(&format!("--registry-ca {trusted}: --insecure-registry says")), "{said}");
        }
        // Another port of it may be.
        assert!(said("r.test:5000", "r.test").contains("/no/such.pem"));
    }

    #[test]
    fn junk_is_no_certificate() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for junk in ["", "junk", "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n"] {
            std::fs::write(file.path(), junk).unwrap();
            let args = NetworkArgs {
                registry_ca: vec![("r.test".parse().unwrap(), file.path().to_owned())],
                ..NetworkArgs::default()
            };
            let refused = args.settings().and_then(|settings| Ok(settings.check()?));
            let said = format!("{:#}", refused.unwrap_err());
            assert!(said.contains("--registry-ca") || said.contains("r.test"), "{junk:?}: {said}");
        }
        assert!(parse_ca("r.test:5000=/a").is_ok() && parse_ca("r.test=").is_err() && parse_ca("r.test").is_err());
    }
}
