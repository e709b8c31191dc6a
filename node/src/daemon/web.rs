//! What the API shows and is shown under: the local authority, names and addresses, counters.

use std::{error::Error, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::warn;

use super::addresses;
use crate::{
    api::{
        ListenInfo,
        metrics::{Kind, MetricsSource, Sample},
    },
    auth::JoinCounters,
    store::files::write_private,
    tls::local_ca::{LocalCa, WebNames},
    transport::TransportCounters,
};

/// How often the interfaces are looked at for changed addresses.
const LOOK_FOR_ADDRESSES: Duration = Duration::from_secs(30);

pub(super) fn local_ca(state_dir: &Path) -> Result<LocalCa, Box<dyn Error>> {
    let (certificate, key) = (state_dir.join("ca.pem"), state_dir.join("ca.key"));
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}; restore it or remove it", path.display())),
        Ok(text) => Ok(Some(text)),
    };
    match (read(&certificate)?, read(&key)?) {
        (Some(certificate), Some(key)) => LocalCa::from_pem(&certificate, &key)
            .map_err(|error| format!("ca.pem and ca.key in {}: {error}", state_dir.display()).into()),
        (certificate_before, _) => {
            if certificate_before.is_some() {
                warn!(
                    "ca.key is missing: a new certificate authority is made, which every browser must import again"
                );
            }
            let ca = LocalCa::generate(&addresses::hostname())?;
            write_private(&key, ca.key_pem().as_bytes())?;
            write_private(&certificate, ca.ca_pem().as_bytes())?;
            Ok(ca)
        }
    }
}

pub(super) fn web_names() -> WebNames {
    WebNames { hostname: addresses::hostname(), addresses: addresses::interfaces() }
}

pub(super) fn listen_info(address: SocketAddr, reachable: &[SocketAddr]) -> ListenInfo {
    let mut api: Vec<String> = reachable.iter().map(|at| format!("https://{at}")).collect();
    if address.ip().is_unspecified() {
        api.push(format!("https://localhost:{}", address.port()));
    }
    ListenInfo { listen: address.to_string(), api }
}

/// Announces the addresses of the interfaces as they change.
pub(super) async fn follow_addresses(
    listen: SocketAddr,
    advertise: Vec<SocketAddr>,
    addresses: watch::Sender<Vec<SocketAddr>>,
    names: watch::Sender<WebNames>,
    info: watch::Sender<ListenInfo>,
) {
    let mut look = tokio::time::interval(LOOK_FOR_ADDRESSES);
    loop {
        look.tick().await;
        let here = addresses::reachable(listen, &advertise);
        replace(&info, listen_info(listen, &here));
        replace(&addresses, here);
        replace(&names, web_names());
    }
}

fn replace<T: PartialEq>(channel: &watch::Sender<T>, next: T) {
    channel.send_if_modified(|present| {
        let differs = *present != next;
        if differs {
            *present = next;
        }
        differs
    });
}

pub(super) fn transport_metrics(counters: Arc<TransportCounters>) -> MetricsSource {
    Arc::new(move || samples(counters.metrics()))
}

pub(super) fn join_metrics(counters: Arc<JoinCounters>) -> MetricsSource {
    Arc::new(move || samples(counters.metrics()))
}

fn samples(counts: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<Sample> {
    let sample = |(name, value): (&'static str, u64)| Sample {
        name: name.into(),
        help: "Events of the transport since the start.",
        kind: Kind::Counter,
        value: value as f64,
    };
    counts.into_iter().map(sample).collect()
}
