//! Doing one thing of an automation: a command, a scene, an event, a call over HTTP.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use device_adapters::Target;
use jiff::SignedDuration;
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::{
    carry::Hands,
    expression::Facts,
    hosts::AllowedHost,
    program::{Http, Waiting, What, filled},
};
use crate::api::ports::events::EventsHandle;

/// How much longer than its deadline it may take until an event is told or a call is over.
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
    pub(super) allowed: Arc<BTreeSet<AllowedHost>>,
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
        match what {
            // Its end is awaited for as long as its transition lasts, and its deadline on top.
            What::Command(command) | What::Scene(command) => {
                let filled = filled(command, &mut fill)?;
                let key = key_of(key, command, &filled);
                let failed = self.hands.one(by, &with_deadline(filled, deadline), key).await;
                if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
            }
            What::Event { topic, data } => {
                let told = self.events.publish(topic.clone(), filled(data, &mut fill)?);
                let told = in_time(deadline, told).await?;
                told.map(drop).map_err(|reason| format!("event {topic}: {reason}"))
            }
            What::Http(http) => {
                let body = filled(&http.body, &mut fill)?;
                in_time(deadline, self.calls.call(http, &body, deadline)).await?
            }
        }
    }
}

async fn in_time<T>(deadline: Duration, done: impl Future<Output = T>) -> Result<T, String> {
    let within = deadline + GRACE;
    timeout(within, done).await.map_err(|_| format!("it took longer than {} s", within.as_secs()))
}

fn with_deadline(mut command: Json, deadline: Duration) -> Json {
    if let Some(members) = command.as_object_mut() {
        let ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        members.entry("deadline_ms").or_insert_with(|| json!(ms));
    }
    command
}

/// The key of a command whose expressions were filled in. Who takes over a run may see another home: what comes out alike is
/// given once, and what does not is another command.
fn key_of(key: String, written: &Json, filled: &Json) -> String {
    if written == filled {
        return key;
    }
    let hash = blake3::hash(filled.to_string().as_bytes()).to_hex();
    format!("{key}.{}", hash.chars().take(8).collect::<String>())
}

/// What is done, for a trace.
pub(super) fn shown(what: &What) -> String {
    let of = |value: &Json, member: &str| value.get(member).map(Json::to_string).unwrap_or_default();
    match what {
        What::Command(command) => format!("{} {}", of(command, "device"), of(command, "change")),
        What::Scene(scene) => format!("scene {}", of(scene, "scene")),
        What::Event { topic, .. } => format!("event {topic}"),
        // Its address may hold a secret, its host does not.
        What::Http(http) => {
            let host = Target::of(&http.url).map(|target| target.to_string());
            format!("{} {}", http.method, host.unwrap_or_default())
        }
    }
}

/// For how long it is waited, for a trace.
pub(super) fn waited(time: SignedDuration, waiting: Option<&Waiting>) -> String {
    let what = if waiting.is_some() { "waits, at most" } else { "waits" };
    format!("{what} {time:#}")
}

impl Calls {
    async fn call(&self, http: &Http, body: &Json, within: Duration) -> Result<(), String> {
        let target = Target::of(&http.url)?;
        if !self.allowed.iter().any(|host| host.takes(&target)) {
            return Err(format!("{target} may not be called: hearth home set --allow-http {target}"));
        }
        let body = if body.is_null() { None } else { Some(body) };
        device_adapters::call(&http.method, target, body, within).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_trace_shows_whom_it_calls_and_not_what_may_be_a_secret() {
        let url = "https://example.org:8443/hook/word?key=word".to_owned();
        let http = Http { url, method: "POST".to_owned(), body: Json::Null };
        assert_eq!(shown(&What::Http(http)), "POST example.org:8443");
    }

    #[tokio::test]
    async fn a_host_that_nobody_allowed_is_not_called() {
        let url = "http://127.0.0.1:9/word".to_owned();
        let http = Http { url, method: "GET".to_owned(), body: Json::Null };
        let call =
            async |calls: Calls| calls.call(&http, &Json::Null, Duration::from_secs(5)).await.unwrap_err();
        let refused = call(Calls::default()).await;
        assert!(refused.contains("hearth home set --allow-http 127.0.0.1:9") && !refused.contains("word"));
        let allowed = BTreeSet::from(["127.0.0.1:9".parse().unwrap()]);
        let tried = call(Calls { allowed: Arc::new(allowed) }).await;
        assert!(!tried.contains("allow") && !tried.contains("word"), "{tried}");
    }
}
