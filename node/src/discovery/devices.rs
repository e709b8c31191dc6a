//! What devices announce by DNS-SD (RFC 6763): hints for the adapters that speak to them.

use std::collections::BTreeMap;

use device_adapters::Hint;
use futures_util::{
    StreamExt as _,
    stream::{BoxStream, SelectAll, select_all},
};
use if_addrs::Interface;
use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent};
use tokio::sync::watch;
use tracing::debug;

use super::nearby::dialable;

/// Longest text that is taken over of an announcement, in bytes.
const MAX_TEXT: usize = 255;
/// Most entries of a TXT record.
const MAX_TXT: usize = 32;
/// Most addresses of one device.
const MAX_ADDRESSES: usize = 16;

/// Most announcements that are remembered; a home has a hundred devices.
const MAX_HINTS: usize = 512;

/// What is announced at the moment, by type and name of its instance.
pub type Announced = BTreeMap<(String, String), Hint>;

/// Which services are looked for, and where what is found is shown.
#[derive(Debug)]
pub struct DeviceHints {
    /// Types such as `_wled._tcp`.
    pub services: Vec<&'static str>,
    /// What is announced at the moment.
    pub announced: watch::Sender<Announced>,
}

/// What one session hears of the wanted services. It goes with the session: whoever is still there is heard by the next,
/// and nobody would ever say of the others that they are gone.
pub(super) struct Announcements {
    events: SelectAll<BoxStream<'static, (&'static str, ServiceEvent)>>,
    announced: watch::Sender<Announced>,
}

impl DeviceHints {
    /// Looks for every wanted service.
    pub(super) fn browse(&self, daemon: &ServiceDaemon) -> Result<Announcements, mdns_sd::Error> {
        let mut all = Vec::new();
        for service in &self.services {
            let service: &'static str = service;
            let events = daemon.browse(&format!("{service}.local."))?;
            all.push(events.into_stream().map(move |event| (service, event)).boxed());
        }
        Ok(Announcements { events: select_all(all), announced: self.announced.clone() })
    }
}

impl Announcements {
    /// What happens next; nothing does when nothing is looked for.
    pub(super) async fn next(&mut self) -> Option<(&'static str, ServiceEvent)> {
        self.events.next().await
    }

    /// Takes in what happened.
    pub(super) fn take_in(&self, service: &'static str, event: ServiceEvent, own: &[Interface]) {
        self.announced.send_if_modified(|announced| match event {
            ServiceEvent::ServiceResolved(resolved) => {
                let hint = hint(service, &resolved, own);
                let key = (hint.service.clone(), hint.name.clone());
                if announced.len() >= MAX_HINTS && !announced.contains_key(&key) {
                    debug!(service, "too many devices announce themselves: one is passed over");
                    return false;
                }
                announced.get(&key) != Some(&hint) && {
                    announced.insert(key, hint);
                    true
                }
            }
            ServiceEvent::ServiceRemoved(_, fullname) => {
                announced.remove(&(service.to_owned(), instance(&fullname, service))).is_some()
            }
            _ => false,
        });
    }
}

impl Drop for Announcements {
    fn drop(&mut self) {
        self.announced.send_if_modified(|announced| !std::mem::take(announced).is_empty());
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
    #![allow(clippy::unwrap_used)]

    use mdns_sd::ServiceInfo;

    use super::*;

    const WLED: &str = "_wled._tcp";

    fn here(name: &str, address: &str) -> ServiceEvent {
        let host = format!("{name}.local.");
        let info = ServiceInfo::new("_wled._tcp.local.", name, &host, address, 80, None);
        ServiceEvent::ServiceResolved(Box::new(info.unwrap().as_resolved_service()))
    }

    fn gone(name: &str) -> ServiceEvent {
        ServiceEvent::ServiceRemoved("_wled._tcp.local.".to_owned(), format!("{name}._wled._tcp.local."))
    }

    /// The next session.
    fn session(announced: &watch::Sender<Announced>) -> Announcements {
        Announcements { events: select_all(Vec::new()), announced: announced.clone() }
    }

    #[test]
    fn who_is_not_heard_again_when_a_session_begins_anew_is_forgotten() {
        let (announced, mut seen) = watch::channel(Announced::new());
        let names =
            |announced: &Announced| announced.keys().map(|(_, name)| name.clone()).collect::<Vec<_>>();
        let first = session(&announced);
        first.take_in(WLED, here("desk", "192.168.1.7"), &[]);
        first.take_in(WLED, here("shelf", "192.168.1.8"), &[]);
        first.take_in(WLED, here("sold", "192.168.1.9"), &[]);
        first.take_in(WLED, gone("sold"), &[]);
        assert_eq!(names(&seen.borrow_and_update()), ["desk", "shelf"]);
        first.take_in(WLED, here("desk", "192.168.1.7"), &[]);
        assert!(!seen.has_changed().unwrap(), "nothing is new");
        drop(first);
        assert!(seen.borrow_and_update().is_empty());
        session(&announced).take_in(WLED, here("desk", "192.168.1.17"), &[]);
        assert!(seen.has_changed().unwrap());
        let second = session(&announced);
        second.take_in(WLED, here("desk", "192.168.1.17"), &[]);
        let at = seen.borrow_and_update().values().next().map(|hint| hint.addresses.clone());
        assert_eq!(at, Some(vec!["192.168.1.17".parse().unwrap()]));
    }

    #[test]
    fn who_announces_very_much_is_not_remembered_without_an_end() {
        let (announced, seen) = watch::channel(Announced::new());
        let session = session(&announced);
        for number in 0..MAX_HINTS + 5 {
            session.take_in(WLED, here(&format!("w{number}"), "192.168.1.7"), &[]);
        }
        assert_eq!(seen.borrow().len(), MAX_HINTS);
    }

    #[test]
    fn the_name_of_an_instance_is_without_its_type() {
        assert_eq!(instance("Shelf.1._wled._tcp.local.", "_wled._tcp"), "Shelf.1");
        assert_eq!(instance("odd", "_wled._tcp"), "odd");
        assert_eq!(clipped(&"ä".repeat(200)).len(), 254);
    }
}
