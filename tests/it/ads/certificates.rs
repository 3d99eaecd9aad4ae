//! Clients that show certificates, by a hand-written Envoy whose stream tells how it ends.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use wasmplane::snapshot::ResourceType::Cluster;
use wasmplane::xds::{Options, Tls, TlsFiles, Transport};

use super::envoy::{Delta, Sotw, delta, soon, sotw};
use super::plane::{Plane, named};
use crate::support::certificates::{Authority, Identity};

/// A control plane that believes the clients of this authority.
async fn plane(authority: &Authority) -> Plane {
    let Identity { cert, key } = authority.sign("server");
    let tls = Tls::open(TlsFiles { cert, key, client_ca: Some(authority.ca()) }).unwrap();
    let transport = Transport { tls: Some(tls), ..Transport::default() };
    let plane = Plane::run(Options { transport, ..Options::default() }).await;
    plane.publish([named(Cluster, "c", "1")]);
    plane
}

/// A connection on which this certificate is shown.
async fn connect(plane: &Plane, authority: &Authority, client: &Identity) -> Channel {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(authority.ca()).unwrap()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&fs::read(&client.cert).unwrap()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&fs::read(&client.key).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connector, address) =
        (TlsConnector::from(Arc::new(config)), plane.url.trim_start_matches("http://").to_owned());
    let connect = tower::service_fn(move |_| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let socket = TcpStream::connect(address).await?;
            connector.connect(ServerName::try_from("127.0.0.1").unwrap(), socket).await.map(TokioIo::new)
        }
    });
    soon(Endpoint::new(plane.url.clone()).unwrap().connect_with_connector(connect)).await.unwrap()
}

/// D33: at that moment, and not at its next message, with a status that says why.
#[tokio::test]
async fn a_stream_whose_certificate_ends_is_closed_as_unauthenticated() {
    let authority = Authority::new("ours");
    let plane = plane(&authority).await;
    let soon_over = authority.sign_until("soon", SystemTime::now() + Duration::from_secs(4));
    let short = connect(&plane, &authority, &soon_over).await;
    let long = connect(&plane, &authority, &authority.sign("long")).await;
    let (mut first, mut second) = (Sotw::ads_on(short.clone()).await, Delta::ads_on(short).await);
    let mut other = Sotw::ads_on(long).await;
    first.send(sotw("e", Cluster, &[]));
    second.send(delta("f", Cluster, &[]));
    other.send(sotw("g", Cluster, &[]));
    first.next().await;
    second.next().await;
    let response = other.next().await;
    for status in [first.end().await, second.end().await] {
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert_eq!(status.message(), "the client certificate has expired, connect with a new one");
    }
    other.ack(&response, &[]);
    plane.publish([named(Cluster, "c", "2")]);
    other.next().await;
}
