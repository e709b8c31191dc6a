//! DuckDNS (duckdns.org/spec.jsp, "TXT Record API"): one text for each of its names, the same at all names below it.

use std::fmt;

use device_adapters::web::{Web, WebError, WebRequest};
use thiserror::Error;
use zeroize::Zeroizing;

use super::name::Name;

/// Where DuckDNS takes changes.
const SERVICE: &str = "https://www.duckdns.org";
/// The zone of its names.
const ZONE: [&[u8]; 2] = [b"duckdns", b"org"];

/// Why DuckDNS has not changed a text, or perhaps has not. No text holds the token.
#[derive(Debug, Error)]
pub enum DuckDnsError {
    /// The name is none of DuckDNS.
    #[error(
        "{0} is no name below duckdns.org: take NAME.duckdns.org as the domain, or make _acme-challenge of yours a CNAME \
         of NAME.duckdns.org"
    )]
    Foreign(Name),
    /// It cannot be asked.
    #[error("DuckDNS cannot be asked: {0}; check the network")]
    Web(#[from] WebError),
    /// This system trusts nobody.
    #[error("DuckDNS cannot be asked: {0}")]
    Trust(String),
    /// It refused.
    #[error(
        "DuckDNS refuses to change {domain}.duckdns.org ({answer:?}): check the token, and that the name is that account's"
    )]
    Refused {
        /// The part of the name before `.duckdns.org`.
        domain: String,
        /// What it answered, some of it.
        answer: String,
    },
    /// It answered with an error.
    #[error("DuckDNS answers with status {0}; it may be down")]
    Status(u16),
}

/// An account at DuckDNS.
pub(super) struct DuckDns {
    service: String,
    token: Zeroizing<String>,
}

impl DuckDns {
    /// The account of that token.
    pub(super) fn new(token: Zeroizing<String>) -> Self {
        Self { service: SERVICE.to_owned(), token }
    }

    /// Whether a token can be one: it goes into a URL.
    pub(super) fn is_token(text: &str) -> bool {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    }

    /// Replaces the text of the name, whatever it was.
    pub(super) async fn set(&self, name: &Name, value: &str) -> Result<(), DuckDnsError> {
        self.ask(name, value, "").await
    }

    /// Removes the text of the name, whatever it is.
    pub(super) async fn clear(&self, name: &Name, value: &str) -> Result<(), DuckDnsError> {
        self.ask(name, value, "&clear=true").await
    }

    async fn ask(&self, name: &Name, value: &str, rest: &str) -> Result<(), DuckDnsError> {
        let domain = domain_of(name).ok_or_else(|| DuckDnsError::Foreign(name.clone()))?;
        // All three are letters, digits, - and _, so nothing is to be escaped.
        let url = format!("{}/update?domains={domain}&token={}&txt={value}{rest}", self.service, *self.token);
        let mut request = WebRequest::get(url);
        request.most = 4096;
        let answer = Web::public().map_err(DuckDnsError::Trust)?.send(request).await?;
        if !answer.status.is_success() {
            return Err(DuckDnsError::Status(answer.status.as_u16()));
        }
        let text = String::from_utf8_lossy(&answer.body);
        if text.trim() == "OK" {
            return Ok(());
        }
        // A page of somebody in between could repeat what it was asked.
        let answer = text.replace(&*self.token, "").chars().take(40).collect();
        Err(DuckDnsError::Refused { domain, answer })
    }
}

impl fmt::Debug for DuckDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuckDns").finish_non_exhaustive()
    }
}

/// The label before `duckdns.org`, which names what the account has.
fn domain_of(name: &Name) -> Option<String> {
    let labels: Vec<&[u8]> = name.labels().collect();
    let (domain, _) = labels.strip_suffix(&ZONE)?.split_last()?;
    let is_fit = domain.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    String::from_utf8(domain.to_vec()).ok().filter(|_| is_fit)
}

#[cfg(test)]
#[path = "duckdns_tests.rs"]
mod tests;
