//! TSIG, by which a name server and its client know each other's messages (RFC 8945).

use std::fmt;

use ring::hmac;
use thiserror::Error;
use zeroize::Zeroizing;

use super::message::{Message, Signature, class, push_signature, unsigned};
use super::name::Name;
use crate::config::TsigAlgorithm;

/// How many seconds a clock may be off (RFC 8945, section 10, recommends it).
const FUDGE: u16 = 300;

/// Why the signature of an answer does not let it count, or what the server said of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TsigError {
    /// The server does not know the key, or for Knot DNS, its rules do not let the key do this (BADKEY).
    #[error(
        "it does not accept the key {name} of {} for this (BADKEY): give the key the name and the algorithm that the \
         server has, and let the server's rules allow that key to change TXT records at this name",
        algorithm.as_str()
    )]
    UnknownKey {
        /// The key's name.
        name: Name,
        /// The key's algorithm.
        algorithm: TsigAlgorithm,
    },
    /// The server has another key of that name (BADSIG).
    #[error("it has another secret for the key {0} (BADSIG): put the server's into the key file")]
    OtherSecret(Name),
    /// Clocks differ too much (BADTIME).
    #[error(
        "its clock differs from ours by {0} s (BADTIME): at most {FUDGE} are allowed, set the wrong one right"
    )]
    Clock(u64),
    /// Another error of signatures.
    #[error("it refuses the signature with error {0}")]
    Error(u16),
    /// The answer is not signed.
    #[error("its answer is not signed, so that anybody may have sent it")]
    Unsigned,
    /// The answer is signed by another key, or does not fit its signature.
    #[error("the signature of its answer is wrong, so that somebody else may have sent it")]
    Forged,
    /// The answer was signed at another time.
    #[error(
        "its answer was signed {0} s away from our time: at most {FUDGE} are allowed, set the wrong clock right"
    )]
    Stale(u64),
}

/// A key that a name server shares with us.
pub(super) struct Key {
    name: Name,
    algorithm: TsigAlgorithm,
    secret: Zeroizing<Vec<u8>>,
}

impl Key {
    /// A key of the name and the algorithm that the server has.
    pub(super) fn new(name: Name, algorithm: TsigAlgorithm, secret: Zeroizing<Vec<u8>>) -> Self {
        Self { name, algorithm, secret }
    }

    /// Signs a message with its whole header, and gives the code, which the answer's signature covers.
    pub(super) fn sign(&self, message: &mut Vec<u8>, now: u64) -> Vec<u8> {
        let id = match message.as_slice() {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        let Some(algorithm) = self.algorithm_name() else { return Vec::new() };
        let mut signature = Signature {
            algorithm,
            time: now,
            fudge: FUDGE,
            mac: Vec::new(),
            original_id: id,
            error: 0,
            other: Vec::new(),
        };
        let covered = self.covered(&[], message, &signature);
        signature.mac = hmac::sign(&self.hmac(), &covered).as_ref().to_vec();
        push_signature(message, &self.name, &signature);
        signature.mac
    }

    /// Checks what the answer says of our signature, and its own, which also covers our code.
    ///
    /// # Errors
    /// [`TsigError`].
    pub(super) fn verify(
        &self,
        bytes: &[u8],
        answer: &Message,
        code: &[u8],
        now: u64,
    ) -> Result<(), TsigError> {
        let (Some((name, signature)), Some(at)) = (answer.signature(), answer.signature_at) else {
            return Err(TsigError::Unsigned);
        };
        // An error is never believed to be a success, so it need not be signed: for BADKEY and BADSIG it cannot be.
        self.error(signature, now)?;
        let is_ours = *name == self.name && Some(&signature.algorithm) == self.algorithm_name().as_ref();
        let message =
            unsigned(bytes, at, signature.original_id).filter(|_| is_ours).ok_or(TsigError::Forged)?;
        let covered = self.covered(code, &message, signature);
        // All of the code, and compared in constant time: a cut one is another one.
        hmac::verify(&self.hmac(), &covered, &signature.mac).map_err(|_| TsigError::Forged)?;
        let away = now.abs_diff(signature.time);
        if away > signature.fudge.min(FUDGE).into() { Err(TsigError::Stale(away)) } else { Ok(()) }
    }

    /// What the server says of our signature (RFC 8945, section 5.2).
    fn error(&self, signature: &Signature, now: u64) -> Result<(), TsigError> {
        Err(match signature.error {
            0 => return Ok(()),
            16 => TsigError::OtherSecret(self.name.clone()),
            17 => TsigError::UnknownKey { name: self.name.clone(), algorithm: self.algorithm },
            18 => TsigError::Clock(now.abs_diff(server_time(signature))),
            other => TsigError::Error(other),
        })
    }

    /// What a code covers (RFC 8945, section 4.3): the request's code, the message, the variables of the signature.
    fn covered(&self, code: &[u8], message: &[u8], signature: &Signature) -> Vec<u8> {
        let mut covered = Vec::with_capacity(message.len() + 512);
        if !code.is_empty() {
            covered.extend(count(code));
            covered.extend(code);
        }
        covered.extend(message);
        covered.extend(self.name.wire());
        covered.extend(class::ANY.to_be_bytes());
        covered.extend(0_u32.to_be_bytes());
        covered.extend(signature.algorithm.wire());
        covered.extend(signature.time.to_be_bytes().iter().skip(2));
        covered.extend(signature.fudge.to_be_bytes());
        covered.extend(signature.error.to_be_bytes());
        covered.extend(count(&signature.other));
        covered.extend(&signature.other);
        covered
    }

    fn algorithm_name(&self) -> Option<Name> {
        Name::of_labels([self.algorithm.as_str().as_bytes()])
    }

    fn hmac(&self) -> hmac::Key {
        let algorithm = match self.algorithm {
            TsigAlgorithm::HmacSha256 => hmac::HMAC_SHA256,
            TsigAlgorithm::HmacSha384 => hmac::HMAC_SHA384,
            TsigAlgorithm::HmacSha512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(algorithm, &self.secret)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// With an error of time comes the time of the server, in 48 bits (RFC 8945, section 5.2.3).
fn server_time(signature: &Signature) -> u64 {
    match signature.other.as_slice() {
        [a, b, c, d, e, f] => u64::from_be_bytes([0, 0, *a, *b, *c, *d, *e, *f]),
        _ => signature.time,
    }
}

/// A count in 16 bits: no code and nothing in a message is longer.
fn count(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
#[path = "tsig_tests.rs"]
mod tests;
