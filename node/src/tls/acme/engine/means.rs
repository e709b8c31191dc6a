//! By what means names are proven: the settings of `[tls]` and the files that they name. What failed by other means is no reason
//! to wait.

use std::{fs::File, io::Read as _, path::Path};

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::config::{DnsProviderConfig, TlsConfig};

/// So much of a file counts, in bytes: no key, no token and hardly a program is longer.
const MAX_BYTES: usize = 64 << 10;

/// A short name for them, from which nothing of a secret can be read; empty where it is not known.
pub(super) async fn means(config: &TlsConfig) -> String {
    let config = config.clone();
    // Off the threads that must not wait for a disk.
    spawn_blocking(move || digest(&config)).await.unwrap_or_default()
}

fn digest(config: &TlsConfig) -> String {
    let mut hasher = blake3::Hasher::new();
    for (key, value) in config.shown() {
        hasher.update(format!("{key} = {value}\n").as_bytes());
    }
    for path in files(config) {
        // Its own digest has the same length whatever it holds.
        match content(path) {
            Some(content) => hasher.update(blake3::hash(&content).as_bytes()),
            None => hasher.update(b"missing"),
        };
    }
    let hash = hasher.finalize().to_hex();
    hash.get(..16).unwrap_or_default().to_owned()
}

/// The files that the settings name.
fn files(config: &TlsConfig) -> impl Iterator<Item = &Path> {
    let of_dns = config.dns.as_ref().and_then(|dns| match &dns.provider {
        DnsProviderConfig::Rfc2136 { key, .. } => key.as_ref().map(|key| &key.file),
        DnsProviderConfig::Hook { command } => Some(command),
        DnsProviderConfig::DuckDns { token_file } => Some(token_file),
    });
    config.directory_root.iter().chain(of_dns).map(std::path::PathBuf::as_path)
}

fn content(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    // A pipe would have the reader wait.
    path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    // Room for all of it at once: what a growing buffer leaves behind would not be wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 2));
    File::open(path).ok()?.take(MAX_BYTES as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, time::Duration};

    use super::*;
    use crate::cli::testing::TempDir;
    use crate::config::{DnsConfig, TsigAlgorithm, TsigKeyConfig};

    #[tokio::test]
    async fn each_setting_and_each_file_counts_and_none_can_be_read_from_it() {
        let folder = TempDir::new();
        let file = folder.path().join("key");
        let key =
            TsigKeyConfig { name: "k".into(), algorithm: TsigAlgorithm::HmacSha256, file: file.clone() };
        let provider = |host: &str| DnsProviderConfig::Rfc2136 {
            host: host.into(),
            port: 53,
            zone: None,
            key: Some(key.clone()),
        };
        let dns = |host: &str| {
            Some(DnsConfig {
                provider: provider(host),
                propagation: Duration::from_secs(1),
                resolvers: vec![],
            })
        };
        let domains = vec!["a.example.org".parse().unwrap()];
        let config = TlsConfig { domains, dns: dns("ns1"), ..TlsConfig::default() };
        let mut seen = vec![means(&config).await];
        seen.push(means(&TlsConfig { contact: Some("a@example.org".into()), ..config.clone() }).await);
        seen.push(means(&TlsConfig { dns: dns("ns2"), ..config.clone() }).await);
        for secret in ["c2VjcmV0", "b3RoZXI="] {
            fs::write(&file, secret).unwrap();
            seen.push(means(&config).await);
            assert_eq!(seen.last(), Some(&means(&config).await), "the same as long as nothing changes");
            assert!(!seen.concat().contains(secret));
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all, "{seen:?}");
    }
}
