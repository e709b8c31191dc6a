//! What a server presents to whoever asks it for a name.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::daemon::PATIENCE;

/// A client that trusts the authorities in these PEM texts alone.
///
/// # Errors
/// When one is no authority.
pub fn trusting(pems: &[&str]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for pem in pems {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate?)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// The chain that a server presents for a name or an address, if it leads to an authority of the client's.
///
/// # Errors
/// When it does not, or the server cannot be reached.
pub async fn presented(
    address: SocketAddr,
    name: &str,
    client: &Arc<ClientConfig>,
) -> Result<Vec<CertificateDer<'static>>> {
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned())?;
        let tls = TlsConnector::from(client.clone()).connect(name, stream).await?;
        let chain = tls.get_ref().1.peer_certificates().context("no certificate")?;
        anyhow::Ok(chain.iter().cloned().map(CertificateDer::into_owned).collect())
    };
    timeout(PATIENCE, asked).await.with_context(|| format!("{address} hangs"))?
}
