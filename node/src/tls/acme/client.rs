//! HTTP to an authority, as [`instant_acme`] wants it and a little more careful: an answer that is no problem document becomes one,
//! a refusal of what is only looked at is an error, and when the authority says when to come back, that is remembered.

use std::{
    fmt,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use device_adapters::web::{Web, WebRequest};
use http_body_util::BodyExt as _;
use hyper::{Method, Request, Response, StatusCode, header};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use jiff::fmt::rfc2822;

use crate::config::TlsConfig;

/// How long one question may take. Authorities look at a challenge before they answer, some of them.
const WITHIN: Duration = Duration::from_secs(60);
/// The longest answer, in bytes; a chain of certificates takes 20 KiB at most.
const MOST: usize = 512 * 1024;
const USER_AGENT: &str = concat!("hearth/", env!("CARGO_PKG_VERSION"), " (instant-acme)");

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Carries questions to an authority over HTTPS. Clones are the same one.
///
/// Whom it trusts is read with the first question, and again as long as that fails: a file that is missing fails an attempt,
/// and keeps nobody from being served by what was had before.
#[derive(Debug, Clone)]
pub struct Https {
    opened: Arc<OnceLock<Web>>,
    root: Option<PathBuf>,
}

impl Https {
    /// To the authority of these settings.
    pub fn to(config: &TlsConfig) -> Self {
        Self { opened: Arc::default(), root: config.directory_root.clone() }
    }

    /// Over this client.
    pub fn over(web: Web) -> Self {
        Self { opened: Arc::new(web.into()), root: None }
    }

    /// Fails with why the file of `directory_root` cannot be used, or that this system trusts nobody.
    fn web(&self) -> Result<Web, String> {
        if let Some(web) = self.opened.get() {
            return Ok(web.clone());
        }
        let web = self.open()?;
        Ok(self.opened.get_or_init(|| web).clone())
    }

    fn open(&self) -> Result<Web, String> {
        let Some(path) = &self.root else { return Web::public() };
        let wrong = |reason: String| {
            format!("`tls.directory_root` names {}, which cannot be used: {reason}", path.display())
        };
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        Web::trusting(&pem).map_err(wrong)
    }
}

impl HttpClient for Https {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer<'static, BytesResponse> {
        let web = self.web();
        Box::pin(async move {
            let web = web.map_err(|reason| Error::Other(reason.into()))?;
            let (parts, body) = request.into_parts();
            let url = parts.uri.to_string();
            if !url.starts_with("https://") {
                return Err(Error::Other("the authority named an address that is not https".into()));
            }
            let body = match body.collect().await {
                Ok(body) => body.to_bytes().to_vec(),
                Err(never) => match never {},
            };
            let mut headers = vec![("user-agent", USER_AGENT.to_owned())];
            if let Some(kind) = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) {
                headers.push(("content-type", kind.to_owned()));
            }
            let asked = WebRequest { method: parts.method, url, headers, body, within: WITHIN, most: MOST };
            let answer = web.send(asked).await.map_err(|error| Error::Other(Box::new(error)))?;
            let mut response = Response::new(());
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(BytesResponse { parts: response.into_parts().0, body: Box::new(Bytes::from(answer.body)) })
        })
    }
}

/// The way to one authority. Clones are the same one.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn HttpClient>,
    /// Seconds after which the authority wants to be asked again, since [`Client::forget`]; 0 for none.
    later_s: Arc<AtomicU64>,
    /// What the clock showed, for dates in `Retry-After`.
    now: Arc<AtomicU64>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Goes by this transport.
    pub fn new(transport: Arc<dyn HttpClient>) -> Self {
        Self { transport, later_s: Arc::default(), now: Arc::default() }
    }

    /// An attempt begins, at this time in seconds since 1970.
    pub(super) fn begin(&self, now: u64) {
        self.later_s.store(0, Relaxed);
        self.now.store(now, Relaxed);
    }

    /// Seconds after which the authority wants to be asked again, as its refusals said.
    pub(super) fn later_s(&self) -> Option<u64> {
        Some(self.later_s.load(Relaxed)).filter(|later| *later > 0)
    }

    /// Reads a document that needs no account; with the seconds after which it may be read again, if it says so.
    ///
    /// # Errors
    /// The authority's problem, or that it is not reached.
    pub(super) async fn get(&self, url: &str) -> Result<(Bytes, Option<u64>), Error> {
        let request = Request::builder().uri(url).body(BodyWrapper::default())?;
        let mut response = self.request(request).await?;
        let after = retry_after(&response, self.now.load(Relaxed));
        let body = response.body.into_bytes().await.map_err(Error::Other)?;
        Ok((body, after))
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let only_looks = request.method() != Method::POST;
        let mut response = self.transport.request(request).await?;
        let status = response.parts.status;
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(response);
        }
        if let Some(after) = retry_after(&response, self.now.load(Relaxed)) {
            self.later_s.fetch_max(after, Relaxed);
        }
        let body = response.body.into_bytes().await.map_err(Error::Other)?;
        let problem = serde_json::from_slice::<Problem>(&body)
            .ok()
            .filter(|problem| problem.r#type.is_some() || problem.detail.is_some());
        let problem = problem.map(|problem| Problem { status: Some(status.as_u16()), ..problem });
        match (problem, only_looks) {
            (Some(problem), true) => Err(Error::Api(problem)),
            (None, true) => Err(Error::Api(no_document(status))),
            (Some(problem), false) if problem.r#type.is_some() => {
                response.body = Box::new(with_status(&body, status).unwrap_or(body));
                Ok(response)
            }
            (_, false) => {
                response.body = Box::new(Bytes::from(document(status)));
                Ok(response)
            }
        }
    }
}

impl HttpClient for Client {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer<'static, BytesResponse> {
        Box::pin(self.clone().ask(request))
    }
}

/// The document with its status in it, which it may leave out.
fn with_status(body: &[u8], status: StatusCode) -> Option<Bytes> {
    let mut document: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    document.insert("status".to_owned(), status.as_u16().into());
    serde_json::to_vec(&document).ok().map(Bytes::from)
}

/// What is said of an answer that says nothing that can be read: of a proxy in between, mostly.
fn no_document(status: StatusCode) -> Problem {
    Problem {
        r#type: None,
        detail: Some(format!("it answered {status}, with nothing that says why")),
        status: Some(status.as_u16()),
        subproblems: Vec::new(),
    }
}

fn document(status: StatusCode) -> Vec<u8> {
    let detail = no_document(status).detail;
    serde_json::to_vec(&serde_json::json!({ "detail": detail, "status": status.as_u16() }))
        .unwrap_or_default()
}

/// `Retry-After` in seconds from now (RFC 9110, section 10.2.3).
fn retry_after(response: &BytesResponse, now: u64) -> Option<u64> {
    let text = response.parts.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds);
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(u64::try_from(date.as_second()).ok()?.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn whom_it_trusts_is_read_when_it_is_needed() {
        let folder = crate::api::fake::TestFolder::new();
        let path = folder.path().join("root.pem");
        let config = TlsConfig { directory_root: Some(path.clone()), ..TlsConfig::default() };
        let https = Https::to(&config);
        let client = Client::new(Arc::new(https.clone()));
        let error = client.get("https://ca.test/dir").await.unwrap_err().to_string();
        assert!(error.contains("tls.directory_root") && error.contains("root.pem"), "{error}");
        let root = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
        std::fs::write(&path, root.cert.pem()).unwrap();
        https.web().unwrap();
    }

    /// Answers every question alike.
    struct Fixed(u16, &'static str, &'static [(&'static str, &'static str)]);

    impl HttpClient for Fixed {
        fn request(&self, _: Request<BodyWrapper<Bytes>>) -> Answer<'static, BytesResponse> {
            let mut response = Response::builder().status(self.0);
            for (name, value) in self.2 {
                response = response.header(*name, *value);
            }
            let parts = response.body(()).unwrap().into_parts().0;
            let body = Box::new(Bytes::from_static(self.1.as_bytes()));
            Box::pin(async move { Ok(BytesResponse { parts, body }) })
        }
    }

    async fn posted(fixed: Fixed) -> (Client, Problem) {
        let client = Client::new(Arc::new(fixed));
        client.begin(1_700_000_000);
        let request =
            Request::builder().method("POST").uri("https://ca.example.org/").body(BodyWrapper::default());
        let mut answer = client.request(request.unwrap()).await.unwrap();
        let problem = serde_json::from_slice(&answer.body.into_bytes().await.unwrap()).unwrap();
        (client, problem)
    }

    #[tokio::test]
    async fn a_refusal_without_a_document_becomes_one() {
        let (client, problem) = posted(Fixed(503, "<html>busy</html>", &[("retry-after", "120")])).await;
        assert_eq!(problem.status, Some(503));
        assert!(problem.detail.unwrap().contains("503"));
        assert_eq!(client.later_s(), Some(120));
        let known = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#;
        let (client, problem) =
            posted(Fixed(429, known, &[("retry-after", "Tue, 14 Nov 2023 23:13:20 GMT")])).await;
        assert_eq!((problem.status, problem.detail.as_deref()), (Some(429), Some("too many")));
        assert_eq!(client.later_s(), Some(3_600));
    }

    #[tokio::test]
    async fn what_is_only_looked_at_fails_with_the_words_of_the_authority() {
        let client = Client::new(Arc::new(Fixed(500, r#"{"detail":"down"}"#, &[])));
        let Err(Error::Api(problem)) = client.get("https://ca.example.org/dir").await else {
            panic!("it was taken for an answer")
        };
        assert_eq!((problem.detail.as_deref(), problem.status), (Some("down"), Some(500)));
        let client = Client::new(Arc::new(Fixed(200, "{}", &[("retry-after", "7")])));
        assert_eq!(client.get("https://ca.example.org/x").await.unwrap().1, Some(7));
        assert_eq!(client.later_s(), None, "only refusals count");
    }
}
