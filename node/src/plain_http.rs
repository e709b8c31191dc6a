//! Plain HTTP, as little of it as has to be: the port where a certificate authority looks for answers to challenges and
//! browsers are sent on to HTTPS, and the page for those who speak it to the HTTPS port.
//!
//! Nothing of the API is here. A connection has one request, whose body is not read.
//!
//! | file | what |
//! | --- | --- |
//! | `head` | reads the head of a request, strictly |
//! | `answer` | what the port answers |
//! | `page` | the page on the HTTPS port |
//! | `port` | the port: binding, bounds, deadlines |

mod answer;
mod head;
mod page;
mod port;

#[cfg(any(fuzzing, test))]
pub(crate) use self::head::fuzzing;
pub use self::{
    answer::Site,
    port::{HttpCounters, HttpPort, PortStatus},
};
pub(crate) use self::{
    head::{Head, read_head},
    page::speaks_https,
    port::{send, way_out},
};

/// An answer, whole; the connection ends behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Status code with its words.
    pub status: &'static str,
    /// Headers of its own, each with its line end.
    pub headers: String,
    /// Type of the body.
    pub media_type: &'static str,
    /// The body; left out of the answer to `HEAD`.
    pub body: String,
}

impl Reply {
    /// One of plain text.
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, headers: String::new(), media_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// The bytes of it. Nothing may be kept by caches: the household may change its mind.
    pub(crate) fn bytes(&self, with_body: bool) -> Vec<u8> {
        let Self { status, headers, media_type, body } = self;
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n{headers}Connection: close\r\n\r\n{}",
            body.len(),
            if with_body { body } else { "" }
        )
        .into_bytes()
    }
}
