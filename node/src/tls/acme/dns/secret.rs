//! Keys and tokens of name servers, which lie in files of their own: only their paths stand in the config.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use thiserror::Error;
use tracing::warn;
use zeroize::Zeroizing;

/// The largest file of a secret, in bytes: no key and no token is longer.
const MAX_BYTES: usize = 1024;
/// Whom a file of a secret may serve: its owner and readers of its group.
const MODE: u32 = 0o640;
/// The shortest key, in bytes: half of the smallest hash's output (RFC 2104, section 3, warns below all of it).
const MIN_KEY: usize = 16;

/// Why a secret cannot be read from its file. No text holds what the file holds.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("the secret in {} cannot be read: {source}; check its path, and that Hearth's user may read it", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It breaks a rule.
    #[error("the secret in {} must be {rule}; write it again", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// The rule.
        rule: &'static str,
    },
}

/// Reads one line of printable text, wherever spaces stand around it. A file that others may read is warned of.
pub(super) fn token(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let broken = |rule| SecretError::Broken { path: path.to_owned(), rule };
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(broken("a file"));
    }
    if about.permissions().mode() & 0o777 & !MODE != 0 {
        warn!(file = %path.display(), "others may read or write this secret; chmod 640 it, or less");
    }
    // Room for all of it at once: what a growing buffer leaves behind would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 2));
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        return Err(broken("at most 1024 bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| broken("text"))?.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(broken("one line of printable characters without spaces"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads a key in base64 (RFC 4648, section 4), as `tsig-keygen` and `keymgr -t` print it.
pub(super) fn key(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let broken = |rule| SecretError::Broken { path: path.to_owned(), rule };
    let text = token(path)?;
    let key = BASE64.decode(text.as_bytes()).map(Zeroizing::new);
    let key = key.map_err(|_| broken("the key alone, in base64 with its = at the end"))?;
    (key.len() >= MIN_KEY).then_some(key).ok_or_else(|| broken("a key of at least 16 bytes, in base64"))
}
