//! The cookie of a session, and the rule against requests that other sites make a browser send with it.
//!
//! A browser adds a cookie by itself, whoever wrote the page. So what comes by cookie and may change something, or opens a
//! WebSocket, must come from a page of the same origin: its `Origin` (RFC 6454) is `https://` and its `Host`; where a
//! browser sends none, `Sec-Fetch-Site` says that no other site is behind it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{guards::may_change, problem::Problem};
use crate::auth::{Secret, sessions::ABSOLUTE_MS};

/// The prefix binds it to this host, to TLS and to every path (RFC 6265bis, section 4.1.3.2).
pub(super) const NAME: &str = "__Host-hearth";
/// Longest secret that is looked at.
const MAX_BYTES: usize = 128;
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The secret of the session in a request's cookie. Two of the name are one too many: nobody knows who set which.
pub(super) fn read(headers: &HeaderMap) -> Option<Secret> {
    let mut found = None;
    for header in headers.get_all(header::COOKIE) {
        let Ok(text) = header.to_str() else { continue };
        let ours = text.split(';').filter_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='));
        for value in ours {
            if found.replace(value).is_some() {
                return None;
            }
        }
    }
    found.filter(|value| (1..=MAX_BYTES).contains(&value.len())).map(Secret::new)
}

/// Whether a request carries the cookie at all.
pub(super) fn is_in(headers: &HeaderMap) -> bool {
    headers.get_all(header::COOKIE).iter().any(|header| {
        let text = String::from_utf8_lossy(header.as_bytes());
        text.split(';').any(|pair| pair.trim().strip_prefix(NAME).is_some_and(|rest| rest.starts_with('=')))
    })
}

/// `Set-Cookie` with a session's secret.
pub(super) fn set(secret: &Secret) -> Option<HeaderValue> {
    value(secret.expose(), ABSOLUTE_MS / 1_000)
}

/// `Set-Cookie` that makes a browser forget it.
pub(super) fn clear() -> Option<HeaderValue> {
    value("", 0)
}

fn value(secret: &str, seconds: u64) -> Option<HeaderValue> {
    let text = format!("{NAME}={secret}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}");
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Refuses a request by cookie that another site may have made. Where a proxy that is believed says what `host` the
/// browser asked for, that counts in place of its own `Host`.
///
/// # Errors
/// A problem that says so.
pub(super) fn must_be_same_origin(
    method: &Method,
    headers: &HeaderMap,
    host: Option<&str>,
) -> Result<(), Problem> {
    if !may_change(method, headers) || is_same_origin(headers, host) {
        return Ok(());
    }
    Err(Problem::new(
        axum::http::StatusCode::FORBIDDEN,
        "foreign-origin",
        "Another site is behind this",
        "a request by cookie must come from a page of this address: its `Origin` is not `https://` and its `Host`",
        "open the page from the same address; a program uses a token instead: `hearth token create`",
    ))
}

fn is_same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => is_of_host(origin, headers, host),
        (Some(_), Some(_)) => false,
        (None, _) => {
            single(headers, &SEC_FETCH_SITE).is_some_and(|site| matches!(site, "same-origin" | "none"))
        }
    }
}

fn is_of_host(origin: &HeaderValue, headers: &HeaderMap, host: Option<&str>) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://"));
    let host = host.or_else(|| single(headers, &header::HOST)).filter(|host| !host.is_empty());
    origin.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
}

/// The text of a header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next().filter(|_| all.next().is_none())?;
    first.to_str().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn the_cookie_is_found_among_others_and_only_once() {
        let read = |all: &[&str]| {
            let all: Vec<_> = all.iter().map(|cookie| ("cookie", *cookie)).collect();
            read(&headers(&all)).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(read(&["a=1; __Host-hearth=hths_x; b=2"]).as_deref(), Some("hths_x"));
        assert_eq!(read(&["a=1", "__Host-hearth=hths_x"]).as_deref(), Some("hths_x"));
        for none in [
            &[][..],
            &["__Host-hearth="],
            &["__Host-hearthx=1"],
            &["x__Host-hearth=1"],
            &["__host-hearth=1"],
            &["__Host-hearth"],
            &["__Host-hearth=a; __Host-hearth=b"],
            &["__Host-hearth=a", "__Host-hearth=a"],
            &[&format!("__Host-hearth={}", "x".repeat(129))],
        ] {
            assert_eq!(read(none), None, "{none:?}");
        }
        assert!(is_in(&headers(&[("cookie", "__Host-hearth=a; __Host-hearth=b")])));
        assert!(!is_in(&headers(&[("cookie", "hearth=a")])));
    }

    #[test]
    fn it_is_for_this_host_over_tls_and_for_no_script() {
        let value = set(&Secret::new("hths_x")).unwrap();
        assert_eq!(
            value.to_str().unwrap(),
            "__Host-hearth=hths_x; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=7776000"
        );
        assert!(value.is_sensitive());
        assert!(clear().unwrap().to_str().unwrap().ends_with("Max-Age=0"));
    }

    #[test]
    fn what_changes_something_must_come_from_the_same_origin() {
        let host = ("host", "home.example:7843");
        let refused =
            |method: Method, all: &[(&str, &str)]| must_be_same_origin(&method, &headers(all), None).is_err();
        let same = ("origin", "https://home.example:7843");
        for fine in [
            &[host, same][..],
            &[host, ("origin", "https://HOME.example:7843")],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none")],
            &[host, same, ("sec-fetch-site", "cross-site")],
        ] {
            assert!(!refused(Method::POST, fine), "{fine:?}");
        }
        let wrong = [
            &[host][..],
            &[host, ("origin", "https://evil.example")],
            &[host, ("origin", "http://home.example:7843")],
            &[host, ("origin", "https://home.example")],
            &[host, ("origin", "https://home.example:7843/")],
            &[host, ("origin", "https://home.example:7843.evil.example")],
            &[host, ("origin", "null")],
            &[host, ("origin", "")],
            &[host, same, same],
            &[same],
            &[host, host, same],
            &[("host", ""), ("origin", "https://")],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
            &[host, ("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[host, ("referer", "https://home.example:7843/")],
        ];
        for wrong in wrong {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
                assert!(refused(method, wrong), "{wrong:?}");
            }
            assert!(!refused(Method::GET, wrong) && !refused(Method::HEAD, wrong));
            let mut upgrade = wrong.to_vec();
            upgrade.push(("upgrade", "websocket"));
            assert!(refused(Method::GET, &upgrade), "{wrong:?}");
        }
        assert!(!refused(Method::GET, &[host, same, ("upgrade", "websocket")]));
    }
}
