//! Answers to the challenges of a certificate authority, which any gateway of the household gives.

use thiserror::Error;

use super::Domain;

/// What a certificate authority will look for.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// HTTP-01 (RFC 8555, section 8.3): `http://DOMAIN/.well-known/acme-challenge/TOKEN` holds the key authorization.
    Http {
        /// Whom it is for.
        domain: Domain,
        /// The challenge's token.
        token: String,
        /// What the file holds.
        key_authorization: String,
    },
    /// TLS-ALPN-01 (RFC 8737): a certificate for the domain with this digest, to whoever speaks `acme-tls/1`.
    TlsAlpn {
        /// Whom it is for.
        domain: Domain,
        /// SHA-256 of the key authorization.
        digest: [u8; 32],
    },
}

/// Why an answer is not where the certificate authority may look. Nothing is left behind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// Living gateways that have not taken it in.
    #[error("these gateways have not taken in the answer to the challenge: {0}")]
    Unacknowledged(String),
    /// The node is stopping, or cannot write.
    #[error("the answer to the challenge cannot be published: {0}")]
    Service(String),
}
