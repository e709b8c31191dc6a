//! What plain HTTP gets at the port that speaks HTTPS: a page that says so, with the way. It is no redirect, so nothing
//! can go in circles.

use super::{Head, Reply};

/// Says that the port speaks HTTPS; with a link when the request names a host that could be one.
pub(crate) fn speaks_https(head: Option<&Head>) -> Reply {
    let link = head.and_then(|head| Some((head, head.host.as_ref()?))).map(|(head, host)| {
        let port = host.port.map(|port| format!(":{port}")).unwrap_or_default();
        let url = escaped(&format!("https://{}{port}{}", host.name, head.path));
        format!("<p><a href=\"{url}\">{url}</a></p>\n")
    });
    let body = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>This port speaks HTTPS</title>\n\
         <p>This is plain HTTP, and this port speaks HTTPS: use https:// and the CA of `hearth ca export`.</p>\n\
         {}</html>\n",
        link.unwrap_or_default()
    );
    let headers = "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; base-uri 'none'\r\n\
                   Referrer-Policy: no-referrer\r\n";
    Reply {
        status: "400 Bad Request",
        headers: headers.to_owned(),
        media_type: "text/html; charset=utf-8",
        body,
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn page(request: &str) -> String {
        speaks_https(Head::parse(request.as_bytes()).as_ref()).body
    }

    #[test]
    fn it_links_to_the_same_place_by_https() {
        let body = page("GET /api/v1/ca?x=1&y=2 HTTP/1.1\r\nHost: kitchen.local:7843\r\n\r\n");
        assert!(body.contains("<a href=\"https://kitchen.local:7843/api/v1/ca?x=1&amp;y=2\">"), "{body}");
        assert!(body.contains("this port speaks HTTPS"), "{body}");
    }

    #[test]
    fn nothing_of_a_request_becomes_markup() {
        let body = page("GET /\"><script>alert('x')</script> HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(!body.contains("<script") && body.contains("&quot;&gt;&lt;script&gt;"), "{body}");
        for without in [
            "GET / HTTP/1.1\r\nHost: \"><script>\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: javascript:alert(1)\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            let body = page(without);
            assert!(!body.contains("href") && body.contains("this port speaks HTTPS"), "{body}");
        }
    }
}
