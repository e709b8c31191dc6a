//! Doing one thing of an automation: a command, a scene, an event, a call over HTTP.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::{
    carry::Hands,
    expression::Facts,
    program::{Http, Waiting, What, filled},
};
use crate::api::ports::events::EventsHandle;

/// How much longer than its own deadline a command may take to be told.
const GRACE: Duration = Duration::from_secs(15);

/// The way to everything that an automation does. Cheap to clone.
#[derive(Clone)]
pub(super) struct Deeds {
    pub(super) hands: Hands,
    pub(super) events: EventsHandle,
    pub(super) calls: Calls,
}

/// The way to hosts that the owner of the home allowed.
#[derive(Clone, Default)]
pub(super) struct Calls {
    /// `host` or `host:port`.
    pub(super) allowed: std::sync::Arc<std::collections::BTreeSet<String>>,
}

impl Deeds {
    /// Does it, once; the same key again does nothing twice as long as commands are remembered.
    ///
    /// # Errors
    /// What failed, for people.
    pub(super) async fn perform(
        &self,
        by: &str,
        what: &What,
        facts: &Facts,
        key: String,
        deadline: Duration,
    ) -> Result<(), String> {
        let mut fill = |expression: &super::expression::Expression| expression.value(facts);
        let done = async {
            match what {
                What::Command(command) | What::Scene(command) => {
                    let mut command = filled(command, &mut fill)?;
                    if let Some(members) = command.as_object_mut() {
                        let ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                        members.entry("deadline_ms").or_insert_with(|| json!(ms));
                    }
                    let failed = self.hands.one(by, &command, key).await;
                    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
                }
                What::Event { topic, data } => {
                    let data = filled(data, &mut fill)?;
                    let told = self.events.publish(topic.clone(), data).await;
                    told.map(|_| ()).map_err(|reason| format!("event {topic}: {reason}"))
                }
                What::Http(http) => {
                    let body = filled(&http.body, &mut fill)?;
                    self.calls.call(http, &body, deadline).await
                }
            }
        };
        timeout(deadline + GRACE, done)
            .await
            .unwrap_or_else(|_| Err(format!("it took longer than {} s", (deadline + GRACE).as_secs())))
    }
}

/// What is done, for a trace.
pub(super) fn shown(what: &What) -> String {
    let of = |value: &Json, member: &str| value.get(member).map(Json::to_string).unwrap_or_default();
    match what {
        What::Command(command) => format!("{} {}", of(command, "device"), of(command, "change")),
        What::Scene(scene) => format!("scene {}", of(scene, "scene")),
        What::Event { topic, .. } => format!("event {topic}"),
        // Its address may hold a secret, its host does not.
        What::Http(http) => format!("{} {}", http.method, host(&http.url)),
    }
}

/// For how long it is waited, for a trace.
pub(super) fn waited(time: SignedDuration, waiting: Option<&Waiting>) -> String {
    let what = if waiting.is_some() { "waits, at most" } else { "waits" };
    format!("{what} {time:#}")
}

/// `host` or `host:port` of an address.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

impl Calls {
    async fn call(&self, http: &Http, body: &Json, within: Duration) -> Result<(), String> {
        let host = host(&http.url);
        if !self.allowed.contains(host) {
            return Err(format!("{host} is no host that may be called: hearth home set --allow-http {host}"));
        }
        let body = if body.is_null() { None } else { Some(body) };
        device_adapters::call(&http.method, &http.url, body, within).await
    }
}
