//! One request, and what becomes of it. [`judge`] is pure.

use std::io::Read as _;
use std::time::Duration;

use flate2::read::GzDecoder;
use hyper::http::uri::PathAndQuery;
use hyper::{StatusCode, Uri};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::http::{Client, HttpError, Origin, Request, Response};

use super::{BodyError, Service};

/// The longest body after it is unpacked, in bytes: eight times what the largest documented answer needs.
const MOST_UNPACKED: u64 = 1024 * 1024;
/// The longest that a request may take, with its connection and its body.
const WITHIN: Duration = Duration::from_secs(10);
/// Redirects that are followed one after the other.
const MOST_REDIRECTS: usize = 3;
/// The longest words of a service that are shown, in characters.
const MOST_WORDS: usize = 200;
/// The longest `Last-Modified` that is sent back, in bytes; a date needs 29.
const MOST_VALIDATOR: usize = 64;

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Outcome<A> {
    /// A new answer.
    Fresh(A, Freshness),
    /// The answer that is kept is the newest (RFC 9110, 304 Not Modified).
    Unchanged(Freshness),
    /// No answer.
    Failed(Fault),
}

/// What an answer says of itself, by its headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// When it was made by the clock of the service, in seconds since 1970: a board may have booted in 1970.
    pub(crate) date: Option<i64>,
    /// How long it holds: `Expires` less `Date`, so that our own clock does not matter (RFC 9111, 4.2.1).
    pub(crate) holds: Option<Duration>,
    /// What to send as `If-Modified-Since`, exactly as it came.
    pub(crate) last_modified: Option<String>,
    /// The service ends this version of its product soon (MET Norway, status 203).
    pub(crate) is_deprecated: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// For people. Holds no secret.
    pub(crate) words: String,
    /// Nothing of the service was reached; another board may do better.
    pub(crate) is_unreachable: bool,
    /// The same request would be refused again.
    pub(crate) is_futile: bool,
    /// How long the service asks to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

/// Asks once.
pub(crate) async fn fetch<S: Service>(
    client: &mut Client,
    service: &S,
    last_modified: Option<&str>,
) -> Outcome<S::Answer> {
    let mut request = Request { within: WITHIN, ..service.request() }.header("accept-encoding", "gzip");
    if let Some(date) = last_modified {
        request = request.header("if-modified-since", date);
    }
    let mut answered = client.send(&request).await;
    for _ in 0..MOST_REDIRECTS {
        let there = answered.as_ref().ok().and_then(|response| redirect(client.origin(), response));
        let Some(path) = there else { break };
        request.path = path;
        answered = client.send(&request).await;
    }
    let now = Timestamp::now().as_second();
    match answered {
        Ok(response) => judge(service, client.origin(), &response, last_modified.is_some(), now),
        Err(error) => {
            // One that answers, and wrongly, is reached.
            let is_unreachable = !matches!(error, HttpError::Protocol { .. } | HttpError::TooLarge { .. });
            let words = error.to_string();
            Outcome::Failed(Fault { words, is_unreachable, is_futile: false, retry_after: None })
        }
    }
}

/// Where the same server has what was asked. Another server is for a person to choose: it would be told where the home is.
pub(crate) fn redirect(origin: &Origin, response: &Response) -> Option<String> {
    let there: Uri = location(response)?.parse().ok()?;
    let is_same = match (there.scheme_str(), there.authority()) {
        (None, None) => true,
        (Some(scheme), Some(authority)) => {
            let tls = scheme == "https";
            let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
            tls == origin.tls && port == origin.port && authority.host().eq_ignore_ascii_case(&origin.host)
        }
        _ => false,
    };
    let path = there.path_and_query().map(PathAndQuery::as_str).filter(|_| is_same)?;
    // Two slashes would begin with the name of another server.
    (path.starts_with('/') && !path.starts_with("//")).then(|| path.to_owned())
}

fn location(response: &Response) -> Option<&str> {
    let redirects = matches!(response.status.as_u16(), 301 | 302 | 307 | 308);
    response.header("location").filter(|_| redirects)
}

/// What an answer means. `now` is our own clock, for a service that does not tell the time.
pub(crate) fn judge<S: Service>(
    service: &S,
    origin: &Origin,
    response: &Response,
    was_conditional: bool,
    now: i64,
) -> Outcome<S::Answer> {
    let status = response.status;
    let freshness = Freshness::of(response, now);
    if status == StatusCode::NOT_MODIFIED && was_conditional {
        return Outcome::Unchanged(freshness);
    }
    let failed = |words: String, is_futile| {
        let retry_after = retry_after(response, freshness.date.unwrap_or(now));
        Outcome::Failed(Fault { words, is_unreachable: false, is_futile, retry_after })
    };
    let unpacked = unpacked(response);
    if status != StatusCode::OK && status != StatusCode::NON_AUTHORITATIVE_INFORMATION {
        let body = unpacked.unwrap_or_default();
        let moved = location(response).map(|there| format!("it has moved to {there}: see the setting `url`"));
        let why = moved.or_else(|| service.refusal(status, &body));
        let why = why.map(|words| format!(": {}", shown(service, &words)));
        let words = format!("{origin} answered {}{}", named(status), why.unwrap_or_default());
        // Too early, too late and too often pass; what else the service blames on us does not.
        let passes = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        return failed(words, !passes);
    }
    match unpacked.and_then(|body| service.read(&body)) {
        Ok(answer) => Outcome::Fresh(answer, freshness),
        Err(error) => failed(format!("{origin} answered, but {error}"), false),
    }
}

impl Freshness {
    fn of(response: &Response, now: i64) -> Self {
        let date = response.header("date").and_then(date);
        let expires = response.header("expires").and_then(self::date);
        let left = expires.map(|expires| expires.saturating_sub(date.unwrap_or(now)));
        let last_modified = response.header("last-modified").filter(|text| text.len() <= MOST_VALIDATOR);
        Self {
            date,
            holds: left.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
            last_modified: last_modified.map(str::to_owned),
            is_deprecated: response.status == StatusCode::NON_AUTHORITATIVE_INFORMATION,
        }
    }
}

/// A date of HTTP (RFC 9110, 5.6.7), in seconds since 1970.
fn date(text: &str) -> Option<i64> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok().map(Timestamp::as_second)
}

/// `Retry-After`: seconds or a date (RFC 9110, 10.2.3).
fn retry_after(response: &Response, now: i64) -> Option<Duration> {
    let text = response.header("retry-after")?.trim();
    let seconds = text.parse().ok().or_else(|| date(text).map(|at| at.saturating_sub(now)))?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// The body, unpacked where it is compressed.
fn unpacked(response: &Response) -> Result<Vec<u8>, BodyError> {
    match response.header("content-encoding").map(str::trim) {
        None | Some("" | "identity") => Ok(response.body.clone()),
        Some("gzip" | "x-gzip") => {
            let mut body = Vec::new();
            let read =
                GzDecoder::new(response.body.as_slice()).take(MOST_UNPACKED + 1).read_to_end(&mut body);
            match read {
                Ok(length) if u64::try_from(length).is_ok_and(|length| length <= MOST_UNPACKED) => Ok(body),
                Ok(_) => Err(BodyError::Compressed("is too large when it is unpacked")),
                Err(_) => Err(BodyError::Compressed("is broken")),
            }
        }
        Some(_) => Err(BodyError::Compressed("is packed in a way that nobody asked for")),
    }
}

fn named(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} ({reason})", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// What a service says, fit for a line. It may repeat what it was asked: the secret is taken out before anything is cut,
/// or a part of it would be left.
fn shown<S: Service>(service: &S, words: &str) -> String {
    let mut line: String = words.chars().filter(|c| !c.is_control()).collect();
    if let Some(secret) = service.secret().filter(|secret| !secret.0.is_empty()) {
        line = line.replace(&secret.0, "…");
    }
    line.chars().take(MOST_WORDS).collect()
}
