//! Headers: what a request may not carry, and what every answer carries.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        AUTHORIZATION, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, EXPECT, HOST, ORIGIN,
        REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_FRAME_OPTIONS,
    },
};

use crate::api::problem::Problem;

/// What two parties could read differently were it there twice.
const ONCE: [HeaderName; 5] = [HOST, AUTHORIZATION, ORIGIN, CONTENT_TYPE, CONTENT_ENCODING];

/// What every answer carries where its handler has not said otherwise.
const ALWAYS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];
/// Two years, as browsers ask for.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// Refuses headers that are there twice, bodies that would grow when unpacked, and expectations.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(name) = ONCE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "header-twice",
            "A header is there twice",
            format!("`{name}` is there more than once"),
            "send it once",
        ));
    }
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-encoding",
            "The body is packed",
            "`Content-Encoding` is something else than `identity`",
            "send the body as it is: none is so large that packing it would help",
        ));
    }
    if headers.get(EXPECT).is_some_and(|expected| !expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Problem::new(
            StatusCode::EXPECTATION_FAILED,
            "expect",
            "The expectation is not known",
            "`Expect` is something else than `100-continue`",
            "leave it out",
        ));
    }
    Ok(())
}

/// Adds what every answer carries. `is_public` says that it goes to a public name with a certificate that every
/// browser trusts: only such a name may be told to stay with HTTPS.
pub(super) fn add(headers: &mut HeaderMap, is_public: bool) {
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if is_public {
        headers.insert(STRICT_TRANSPORT_SECURITY, HSTS);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn status(headers: &[(HeaderName, &'static str)]) -> Option<u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        check(&map).err().map(|problem| problem.status().as_u16())
    }

    #[test]
    fn what_may_be_there_once_is_refused_twice() {
        assert_eq!(status(&[(HOST, "a"), (AUTHORIZATION, "Bearer x")]), None);
        assert_eq!(status(&[(HOST, "a"), (HOST, "a")]), Some(400));
        assert_eq!(status(&[(AUTHORIZATION, "Bearer x"), (AUTHORIZATION, "Bearer y")]), Some(400));
    }

    #[test]
    fn packed_bodies_and_unknown_expectations_are_refused() {
        assert_eq!(status(&[(CONTENT_ENCODING, "Identity"), (EXPECT, "100-Continue")]), None);
        for packed in ["gzip", "br", "deflate", "identity, gzip", ""] {
            assert_eq!(status(&[(CONTENT_ENCODING, packed)]), Some(415), "{packed}");
        }
        assert_eq!(status(&[(EXPECT, "everything")]), Some(417));
    }

    #[test]
    fn a_page_may_say_what_it_needs_and_only_public_names_stay_with_https() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'"));
        add(&mut headers, false);
        assert_eq!(headers[CONTENT_SECURITY_POLICY], "default-src 'self'");
        assert_eq!(headers[X_FRAME_OPTIONS], "DENY");
        assert!(!headers.contains_key(STRICT_TRANSPORT_SECURITY));
        add(&mut headers, true);
        assert_eq!(headers[STRICT_TRANSPORT_SECURITY], "max-age=63072000");
    }
}
