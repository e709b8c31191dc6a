//! What a node keeps of its certificates in the folder `acme/` of its state folder. Nothing of it is in a backup, replicated or
//! shown: a node that lost it orders anew.
//!
//! | file | what |
//! | --- | --- |
//! | `account-NAME` | the account at one directory and its key, secret |
//! | `order` | the order under way: its URL, what was published for it, and the key of its certificate, secret |
//! | `certificate` | the certificate that is served, with its key, secret |
//! | `renewal` | when it is renewed |
//! | `pace` | what was tried and when |

use std::{
    fmt,
    path::{Path, PathBuf},
};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use tracing::warn;
use zeroize::Zeroizing;

use super::pace::Tries;
use super::renewal::Plan;
use super::solve::Proof;
use crate::store::files::{FileError, FileKind, read_checked, remove_if_there, write_durable};

const fn kind(magic: [u8; 8], way_out: &'static str) -> FileKind {
    FileKind { magic, version: 1, max_bytes: 512 << 10, mode: 0o600, way_out }
}

const ACCOUNT: FileKind = kind(*b"HTHACCT\0", "remove it; a new account is made");
const ORDER: FileKind = kind(*b"HTHORDR\0", "remove it; a new order is made");
const CERTIFICATE: FileKind = kind(*b"HTHCERT\0", "remove it; a new certificate is ordered");
const RENEWAL: FileKind = kind(*b"HTHRENW\0", "remove it; when to renew is decided anew");
const PACE: FileKind =
    kind(*b"HTHPACE\0", "remove it, but not more than once a week: the authority counts, too");

/// A private key in PKCS #8. Erased from memory when dropped; never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PrivateKey(pub(super) Zeroizing<Vec<u8>>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}

impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(BASE64URL_NOPAD.encode(&self.0));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        // The library's error names the byte that does not fit.
        bytes.map(|bytes| Self(Zeroizing::new(bytes))).map_err(|_| serde::de::Error::custom("not a key"))
    }
}

/// The account at one directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccountFile {
    pub(super) directory: String,
    pub(super) key: PrivateKey,
    /// Its URL, once the authority has told it.
    pub(super) id: Option<String>,
    /// The contact that the authority was told.
    pub(super) contact: Option<String>,
}

/// The order under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderFile {
    pub(super) directory: String,
    pub(super) url: String,
    pub(super) domains: Vec<String>,
    pub(super) profile: Option<String>,
    /// Whether it takes the place of another certificate by the authority's leave, and counts in no limit.
    pub(super) replaces: bool,
    /// What stands where the authority may look.
    pub(super) published: Vec<Proof>,
    /// Whether all of that stood, so that the authority may have been told of it.
    #[serde(default)]
    pub(super) is_looked_for: bool,
    /// The key of the certificate; kept before the authority hears of it.
    pub(super) key: Option<PrivateKey>,
}

/// The certificate that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CertificateFile {
    pub(super) directory: String,
    pub(super) domains: Vec<String>,
    pub(super) profile: Option<String>,
    /// The order that it came from.
    pub(super) order: String,
    /// The chain in PEM, its own certificate first.
    pub(super) chain: String,
    pub(super) key: PrivateKey,
}

/// The folder. Clones are the same one; one task uses it.
#[derive(Debug, Clone)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    /// In this folder, which is made when something is written.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(super) async fn account(&self, directory: &str) -> Result<Option<AccountFile>, FileError> {
        let found: Option<AccountFile> = self.read(account_name(directory), ACCOUNT).await?;
        Ok(found.filter(|found| found.directory == directory))
    }

    pub(super) async fn set_account(&self, account: &AccountFile) -> Result<(), FileError> {
        self.write(account_name(&account.directory), ACCOUNT, account).await
    }

    pub(super) async fn order(&self) -> Result<Option<OrderFile>, FileError> {
        self.read("order".to_owned(), ORDER).await
    }

    pub(super) async fn set_order(&self, order: &OrderFile) -> Result<(), FileError> {
        self.write("order".to_owned(), ORDER, order).await
    }

    pub(super) async fn forget_order(&self) -> Result<(), FileError> {
        let path = self.folder.join("order");
        blocking(move || Ok(remove_if_there(&path)?)).await
    }

    pub(super) async fn certificate(&self) -> Result<Option<CertificateFile>, FileError> {
        self.read("certificate".to_owned(), CERTIFICATE).await
    }

    pub(super) async fn set_certificate(&self, certificate: &CertificateFile) -> Result<(), FileError> {
        self.write("certificate".to_owned(), CERTIFICATE, certificate).await
    }

    pub(super) async fn plan(&self) -> Result<Option<Plan>, FileError> {
        self.read("renewal".to_owned(), RENEWAL).await
    }

    pub(super) async fn set_plan(&self, plan: &Plan) -> Result<(), FileError> {
        self.write("renewal".to_owned(), RENEWAL, plan).await
    }

    pub(super) async fn tries(&self) -> Result<Option<Tries>, FileError> {
        self.read("pace".to_owned(), PACE).await
    }

    pub(super) async fn set_tries(&self, tries: &Tries) -> Result<(), FileError> {
        self.write("pace".to_owned(), PACE, tries).await
    }

    async fn read<T: DeserializeOwned + Send + 'static>(
        &self,
        name: String,
        kind: FileKind,
    ) -> Result<Option<T>, FileError> {
        let path = self.folder.join(name);
        blocking(move || {
            let damaged = |path: PathBuf, reason: &'static str| {
                warn!(file = %path.display(), reason, "a damaged file is passed over, and made anew");
                Ok(None)
            };
            // Each can be made anew, and a home has nobody who would do so by hand.
            let bytes = match read_checked(&path, &kind) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(None),
                Err(FileError::Damaged { path, reason, .. }) => return damaged(path, reason),
                Err(error) => return Err(error),
            };
            match serde_json::from_slice(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(_) => damaged(path, "its content is not what this kind of file holds"),
            }
        })
        .await
    }

    async fn write(&self, name: String, kind: FileKind, value: &impl Serialize) -> Result<(), FileError> {
        let (folder, path) = (self.folder.clone(), self.folder.join(name));
        // Maps with keys of text only: this cannot fail, and what is empty is refused when it is read.
        let bytes = Zeroizing::new(serde_json::to_vec(value).unwrap_or_default());
        blocking(move || {
            make_folder(&folder)?;
            write_durable(&path, &kind, &bytes)
        })
        .await
    }
}

/// An account for each directory: that of tries must not take the place of the other.
fn account_name(directory: &str) -> String {
    let hash = blake3::hash(directory.as_bytes()).to_hex();
    format!("account-{}", hash.get(..16).unwrap_or_default())
}

fn make_folder(folder: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    match builder.mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(crate::store::DiskError::new("make", folder, error).into())
        }
        _ => Ok(()),
    }
}

/// Off the threads that must not wait for a disk. What panics there is no answer of the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            let error = std::io::Error::other(error.to_string());
            Err(crate::store::DiskError::new("use", Path::new("acme"), error).into())
        }
    }
}
