//! What devices announce by DNS-SD (RFC 6763): hints for the adapters that speak to them.

use std::collections::BTreeMap;

use device_adapters::Hint;
use futures_util::{
    StreamExt as _,
    stream::{BoxStream, SelectAll, select_all},
};
use if_addrs::Interface;
use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent};
use tokio::sync::mpsc;
use tracing::debug;

use super::nearby::dialable;

/// Longest text that is taken over of an announcement, in bytes.
const MAX_TEXT: usize = 255;
/// Most entries of a TXT record.
const MAX_TXT: usize = 32;
/// Most addresses of one device.
const MAX_ADDRESSES: usize = 16;

/// A device announced itself, or is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// It is there.
    Here(Hint),
    /// It said goodbye, or was not heard for as long as it had said.
    Gone {
        /// The type of the service.
        service: String,
        /// The name of its instance.
        name: String,
    },
}

/// Which services are looked for, and where what is found goes.
#[derive(Debug)]
pub struct DeviceHints {
    /// Types such as `_wled._tcp`.
    pub services: Vec<&'static str>,
    /// Whoever is full misses one; a device announces itself again.
    pub to: mpsc::Sender<Announced>,
}

/// The announcements of all wanted services.
pub(super) type Announcements = SelectAll<BoxStream<'static, (&'static str, ServiceEvent)>>;

impl DeviceHints {
    /// Looks for every wanted service; who is known already is told again.
    pub(super) fn browse(&self, daemon: &ServiceDaemon) -> Result<Announcements, mdns_sd::Error> {
        let mut all = Vec::new();
        for service in &self.services {
            let service: &'static str = service;
            let events = daemon.browse(&format!("{service}.local."))?;
            all.push(events.into_stream().map(move |event| (service, event)).boxed());
        }
        Ok(select_all(all))
    }

    /// Passes on what an event tells.
    pub(super) fn pass_on(&self, service: &'static str, event: ServiceEvent, own: &[Interface]) {
        let announced = match event {
            ServiceEvent::ServiceResolved(resolved) => Announced::Here(hint(service, &resolved, own)),
            ServiceEvent::ServiceRemoved(_, fullname) => {
                Announced::Gone { service: service.to_owned(), name: instance(&fullname, service) }
            }
            _ => return,
        };
        if self.to.try_send(announced).is_err() {
            debug!(service, "too many devices announce themselves: one is passed over");
        }
    }
}

/// Addresses beyond the networks of this home are left out: anybody may announce anything.
fn hint(service: &'static str, resolved: &ResolvedService, own: &[Interface]) -> Hint {
    let txt = resolved.get_properties().iter().take(MAX_TXT);
    let txt: BTreeMap<String, String> =
        txt.map(|pair| (clipped(pair.key()), clipped(pair.val_str()))).collect();
    Hint {
        service: service.to_owned(),
        name: instance(&resolved.fullname, service),
        addresses: resolved
            .addresses
            .iter()
            .filter_map(|ip| dialable(ip.to_ip_addr(), 0, resolved.port, own))
            .map(|at| at.ip())
            .take(MAX_ADDRESSES)
            .collect(),
        port: resolved.port,
        txt,
    }
}

/// The name of an instance, of `NAME._wled._tcp.local.`
fn instance(fullname: &str, service: &str) -> String {
    let end = format!(".{service}.local.");
    clipped(fullname.strip_suffix(&end).unwrap_or(fullname))
}

fn clipped(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_instance_is_without_its_type() {
        assert_eq!(instance("Shelf.1._wled._tcp.local.", "_wled._tcp"), "Shelf.1");
        assert_eq!(instance("odd", "_wled._tcp"), "odd");
        assert_eq!(clipped(&"ä".repeat(200)).len(), 254);
    }
}
