//! Why an order came to nothing, and what follows from that.

use instant_acme::{AuthorizationHandle, AuthorizationStatus, Error};
use thiserror::Error as ThisError;

use super::check::CheckError;
use super::pace::{Failure, Limit};
use super::words;
use crate::store::files::FileError;

/// Why there is no certificate.
#[derive(Debug, ThisError)]
pub(super) enum OrderError {
    #[error("the authority refuses: {words}")]
    Authority { words: String, kind: Option<String>, status: Option<u16> },
    #[error("the authority could not convince itself that {domain} is this node's: {words}")]
    Validation { domain: String, words: String },
    #[error("the proof of {domain} holds no more, it is {status}: a new order is made")]
    Over { domain: String, status: String },
    #[error("the authority is not reached: {0}")]
    Lost(String),
    #[error("the proof for {domain} cannot be put where the authority looks: {reason}")]
    Solve { domain: String, reason: String },
    #[error(
        "the authority does not take {challenge} for {domain}, only {offered}: set `tls.challenge` to one of these"
    )]
    NoChallenge { domain: String, challenge: &'static str, offered: String },
    #[error(
        "the authority has no profile `{profile}`: set `tls.profile` to one of these, or remove it: {known}"
    )]
    Profile { profile: String, known: String },
    #[error(
        "the authority does not take the order for a renewal, and without that the household has had {} {}, as many as it grants: \
         this waits until it grants more",
        limit.most, limit.of
    )]
    Spent { until: u64, limit: Limit },
    #[error("the authority takes too long {0}; the order goes on later")]
    Slow(&'static str),
    #[error("the new certificate is not served: {0}")]
    Check(#[from] CheckError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("what the authority answers is not understood: {0}")]
    Odd(String),
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::Authority {
                words: words::of_problem(&problem),
                kind: problem.r#type.clone(),
                status: problem.status,
            },
            Error::Other(reason) => Self::Lost(words::shown(&reason.to_string())),
            Error::Timeout(_) => Self::Slow("to answer"),
            other => Self::Odd(words::shown(&other.to_string())),
        }
    }
}

impl OrderError {
    /// Whether the authority names its problem so (RFC 8555, section 6.7).
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Authority { kind: Some(kind), .. }
            if kind.strip_prefix("urn:ietf:params:acme:error:") == Some(name))
    }

    fn status(&self) -> u16 {
        match self {
            Self::Authority { status, .. } => status.unwrap_or(0),
            _ => 0,
        }
    }

    /// What the pace goes by.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Validation { .. } => Failure::Validation,
            Self::Lost(_) => Failure::Lost,
            Self::Authority { .. } if self.is("rateLimited") || self.status() == 429 => Failure::Limited,
            // A nonce that is refused three times in a row says nothing of the order (RFC 8555, section 6.5).
            Self::Authority { .. } if self.status() >= 500 || self.is("badNonce") => Failure::Lost,
            _ => Failure::Other,
        }
    }

    /// Whether the order that is under way may still come to its end.
    pub(super) fn keeps_order(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Slow(_) | Self::Solve { .. } | Self::File(_) => true,
            Self::Authority { .. } => matches!(self.failure(), Failure::Limited | Failure::Lost),
            _ => false,
        }
    }
}

/// What the authority says of a proof that it did not find. One that has expired, or was taken back, was not looked for in vain.
pub(super) fn refused(authorization: &AuthorizationHandle<'_>) -> OrderError {
    let said = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
    let domain = authorization.identifier().to_string();
    if authorization.status != AuthorizationStatus::Invalid {
        return OrderError::Over { domain, status: format!("{:?}", authorization.status).to_lowercase() };
    }
    let words =
        said.map_or_else(|| format!("it is {:?}, without a reason", authorization.status), words::of_problem);
    OrderError::Validation { domain, words }
}

pub(super) fn shown_kind(kind: &instant_acme::ChallengeType) -> String {
    use instant_acme::ChallengeType::{DeviceAttest01, Dns01, Http01, TlsAlpn01};
    match kind {
        Http01 => "http-01".to_owned(),
        Dns01 => "dns-01".to_owned(),
        TlsAlpn01 => "tls-alpn-01".to_owned(),
        DeviceAttest01 => "device-attest-01".to_owned(),
        other => words::shown(&format!("{other:?}")),
    }
}

/// Whether an order was refused for what it is to replace (RFC 9773, section 5): it was replaced already, belongs to another
/// account, or the authority has forgotten it, does not say that it took it so, or breaks over it (as Pebble does where it does not
/// find it): asked for the same again it would break again, until the certificate has ended.
pub(super) fn is_about_replacing(error: &Error) -> bool {
    match error {
        Error::Api(problem) => {
            let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next());
            problem.status == Some(409)
                || matches!(kind, Some("alreadyReplaced" | "malformed" | "unauthorized" | "serverInternal"))
        }
        Error::Other(reason) => reason.to_string().starts_with("replaces field mismatch"),
        _ => false,
    }
}
