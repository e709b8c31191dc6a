//! Pages of others: what their scripts may not do here.
//!
//! A browser says in `Origin`, and in `Sec-Fetch-Site`, whose page a request comes from; other programs say
//! nothing. A page of this node has the same origin as what it asks for. Others are the ones that
//! `[api] origins` names, and only these get the headers with which a browser lets a page read an answer.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, UPGRADE, VARY,
        },
    },
    response::Response,
};

use super::host::Place;
use crate::api::problem::Problem;

/// Whose page a request may come from.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<String>);

/// Whom a request comes from, as far as a browser says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// No page, or one of this node.
    Own,
    /// A page that the configuration names.
    Listed(HeaderValue),
}

impl Origins {
    /// These, as `scheme://host[:port]` in lower case.
    pub fn new(listed: &[String]) -> Self {
        Self(listed.to_vec())
    }

    /// Refuses what a page of somebody else sends. `here` is where the client wants to be, by `scheme`.
    pub(super) fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        scheme: &str,
        here: Option<&Place>,
    ) -> Result<Page, Problem> {
        let origin = headers.get(ORIGIN);
        if let Some(listed) = origin.filter(|origin| self.lists(origin)) {
            return Ok(Page::Listed(listed.clone()));
        }
        if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
            return Err(foreign("a page of another site"));
        }
        let is_own = |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| is_same(origin, scheme, here));
        match origin {
            // A script reads no answer that carries no permission: what changes nothing does no harm.
            Some(origin) if may_change(method, headers) && !is_own(origin) => {
                let shown: String = origin.to_str().unwrap_or("?").chars().take(64).collect();
                Err(foreign(&format!("a page of `{shown}`")))
            }
            _ => Ok(Page::Own),
        }
    }

    fn lists(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.0.iter().any(|listed| listed.eq_ignore_ascii_case(origin)))
    }
}

impl Page {
    /// The answer to a browser that asks beforehand (preflight); none where it does not.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let Self::Listed(_) = self else { return None };
        if *method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let told = response.headers_mut();
        let methods = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
        told.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        let names = HeaderValue::from_static("authorization, content-type");
        told.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        told.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        Some(response)
    }

    /// Lets a listed page read the answer. Never with cookies: it has a token of its own.
    pub(super) fn permit(&self, headers: &mut HeaderMap) {
        if let Self::Listed(origin) = self {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

/// Whether a request of this method only reads.
pub(in crate::api) fn only_reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a request may change something, or open a WebSocket, which knows no permission to read.
pub(in crate::api) fn may_change(method: &Method, headers: &HeaderMap) -> bool {
    !only_reads(method) || headers.contains_key(UPGRADE)
}

/// Whether an origin is the place that the client wants to be, its usual port written out or not.
fn is_same(origin: &str, scheme: &str, here: Option<&Place>) -> bool {
    let Some((of, rest)) = origin.split_once("://") else { return false };
    let (Some(place), Some(here)) = (Place::read(rest), here) else { return false };
    let usual = if scheme == "http" { 80 } else { 443 };
    let port = |place: &Place| place.port.unwrap_or(usual);
    of == scheme && place.host == here.host && port(&place) == port(here)
}

fn foreign(whose: &str) -> Problem {
    let detail = format!("the browser says that the request comes from {whose}");
    let fix = "open the node's own address; a page that may do this is named in `origins` under `[api]` in hearth.toml";
    Problem::new(StatusCode::FORBIDDEN, "foreign-origin", "Not from a page of this node", detail, fix)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn check(method: &Method, headers: &[(&'static str, &str)]) -> Result<Page, u16> {
        let map: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let origins = Origins::new(&["https://panel.example".to_owned()]);
        let here = Place::read("pi.local:7843");
        origins.check(method, &map, "https", here.as_ref()).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn who_is_no_page_and_who_is_an_own_one_passes() {
        assert_eq!(check(&Method::POST, &[]), Ok(Page::Own));
        let own = ("origin", "https://pi.local:7843");
        assert_eq!(check(&Method::POST, &[own]), Ok(Page::Own));
        assert_eq!(check(&Method::GET, &[own, ("upgrade", "websocket")]), Ok(Page::Own));
        assert_eq!(check(&Method::GET, &[("sec-fetch-site", "none")]), Ok(Page::Own));
        assert_eq!(check(&Method::GET, &[("origin", "https://evil.example")]), Ok(Page::Own), "unread");
    }

    #[test]
    fn another_page_changes_nothing_and_opens_no_websocket() {
        for origin in [
            "https://evil.example",
            "http://pi.local:7843",
            "https://pi.local",
            "https://pi.local:7844",
            "null",
            "https://pi.local:7843.evil.example",
            "https://x@pi.local:7843",
            "HTTPS://pi.local:7843x",
            "",
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
                assert_eq!(check(&method, &[("origin", origin)]), Err(403), "{method} {origin}");
            }
            assert_eq!(
                check(&Method::GET, &[("origin", origin), ("upgrade", "websocket")]),
                Err(403),
                "{origin}"
            );
        }
        assert_eq!(check(&Method::GET, &[("sec-fetch-site", "cross-site")]), Err(403));
        let mixed = [("sec-fetch-site", "cross-site"), ("origin", "https://pi.local:7843")];
        assert_eq!(check(&Method::POST, &mixed), Err(403), "the browser contradicts itself");
    }

    #[test]
    fn a_listed_page_may_ask_and_read() {
        let listed = [("origin", "https://panel.example"), ("sec-fetch-site", "cross-site")];
        let page = check(&Method::POST, &listed).unwrap();
        let mut headers = HeaderMap::new();
        page.permit(&mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://panel.example");
        assert!(!headers.contains_key("access-control-allow-credentials"));
        let asks = HeaderMap::from_iter([(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"))]);
        assert_eq!(page.preflight(&Method::OPTIONS, &asks).unwrap().status(), StatusCode::NO_CONTENT);
        assert!(page.preflight(&Method::POST, &asks).is_none());
        assert!(Page::Own.preflight(&Method::OPTIONS, &asks).is_none());
        Page::Own.permit(&mut HeaderMap::new());
    }

    #[test]
    fn the_usual_port_may_be_written_out() {
        let here = Place::read("home.example.org");
        assert!(is_same("https://home.example.org:443", "https", here.as_ref()));
        assert!(is_same("https://home.example.org", "https", Place::read("home.example.org:443").as_ref()));
        assert!(!is_same("http://home.example.org", "https", here.as_ref()));
        assert!(is_same("http://home.example.org:80", "http", here.as_ref()));
    }
}
