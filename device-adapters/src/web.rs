//! HTTPS for the rest of the node, by the client that adapters have: bounded, with deadlines, no redirects followed.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

pub use crate::http::HttpError as WebError;
use crate::http::{Client, Origin, Request, public_tls, tls_trusting};
use crate::net::Route;

/// What is asked.
#[derive(Clone)]
pub struct WebRequest {
    /// The method.
    pub method: Method,
    /// `https://HOST[:PORT][/PATH][?QUERY]`; `http://` where the caller allows it.
    pub url: String,
    /// Headers, by names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body, empty for none.
    pub body: Vec<u8>,
    /// For all of it, the connection and the body included.
    pub within: Duration,
    /// The longest body that is taken, in bytes.
    pub most: usize,
}

impl WebRequest {
    /// A `GET` with 20 s and 256 KiB.
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            within: Duration::from_secs(20),
            most: 256 * 1024,
        }
    }
}

/// What was answered.
#[derive(Debug)]
pub struct WebResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// The authorities that this system trusts.
///
/// # Errors
/// That it trusts none, with the way out.
pub fn public_roots() -> Result<rustls::RootCertStore, String> {
    crate::http::public_roots()
}

/// Asks any host, each time over a connection of its own.
#[derive(Debug, Clone)]
pub struct Web {
    tls: Arc<ClientConfig>,
}

impl Web {
    /// Trusts the authorities that this system trusts.
    ///
    /// # Errors
    /// That it trusts none, with the way out.
    pub fn public() -> Result<Self, String> {
        Ok(Self { tls: public_tls()? })
    }

    /// Trusts the authorities in this PEM text and no other.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn trusting(pem: &[u8]) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        Ok(Self { tls: tls_trusting(roots)? })
    }

    /// Asks and waits for the whole answer, whatever its status.
    ///
    /// # Errors
    /// [`WebError`]; none of its texts holds the path or the query.
    pub async fn send(&self, request: WebRequest) -> Result<WebResponse, WebError> {
        let (address, query) =
            request.url.split_once('?').map_or((&*request.url, None), |(a, q)| (a, Some(q)));
        let (origin, path) = Origin::parse(address)?;
        // What `Origin::parse` gives has lost a slash at its end, which a server may tell apart.
        let slash = if path.is_empty() || address.ends_with('/') { "/" } else { "" };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let asked = Request {
            method: request.method,
            path: format!("{path}{slash}{query}"),
            headers: request.headers,
            body: request.body,
            within: request.within,
            most: request.most,
        };
        let mut client = Client::new(origin, Route::default(), Some(self.tls.clone()));
        let answer = client.send(&asked).await?;
        Ok(WebResponse { status: answer.status, headers: answer.headers, body: answer.body })
    }
}
