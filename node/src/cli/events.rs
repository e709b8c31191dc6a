//! `hearth event`.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::Session;
use super::args::{EventCommand, WatchArgs};
use super::exit::{Exit, Failure};
use super::output::Done;
use super::values::Assignment;

impl Session {
    pub(super) async fn event(&self, command: &EventCommand) -> Done<Exit> {
        match command {
            EventCommand::Publish { topic, data } => {
                let body = json!({"topic": topic, "data": members(data)?});
                let answer = self.client.call(Method::POST, "/api/v1/events", Some(&body)).await?;
                self.done(answer, format!("{topic} is told to every node"))
            }
            EventCommand::Watch { prefix, count, timeout } => {
                let prefixes = vec![format!("event/{}", prefix.as_deref().unwrap_or_default())];
                let (count, timeout) = (*count, *timeout);
                self.watch(&WatchArgs { prefixes, changes: true, count, timeout, passes_by: true }).await
            }
        }
    }
}

fn members(data: &[Assignment]) -> Result<Value, Failure> {
    let mut members = Map::new();
    for assignment in data {
        match assignment {
            Assignment::Field(name, value) => drop(members.insert(name.as_str().to_owned(), value.clone())),
            Assignment::Stdin => {
                let detail = "`-` is no part of an event";
                return Err(Failure::new(Exit::Usage, detail, "write key=value, or key:=JSON"));
            }
        }
    }
    Ok(if members.is_empty() { Value::Null } else { Value::Object(members) })
}
