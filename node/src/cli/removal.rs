//! `hearth nodes remove`.

use std::io::{BufRead as _, IsTerminal, stderr, stdin};

use hyper::Method;
use serde_json::Value;

use super::Session;
use super::client::segment;
use super::exit::{Exit, Failure};
use super::model::{Status, read};
use super::output::Done;

impl Session {
    /// Removes a node for good, once somebody has confirmed it.
    pub(super) async fn remove(&self, node: &str, yes: bool, force: bool) -> Done<Exit> {
        if !yes {
            self.confirm(node).await?;
        }
        let path = format!("/api/v1/nodes/{}?force={force}", segment(node));
        let answer = self.client.call(Method::DELETE, &path, None).await?;
        let name = answer.get("name").and_then(Value::as_str).unwrap_or(node);
        self.out.either(&answer, || format!("{name} is removed from the household"))?;
        let admitted = answer.get("admitted").and_then(Value::as_array).cloned().unwrap_or_default();
        let stay: Vec<&str> = admitted.iter().filter_map(Value::as_str).collect();
        if !stay.is_empty() {
            self.out.note(format!(
                "it had admitted these, which stay; remove them too if you do not know them: {}",
                stay.join(", ")
            ));
        }
        Ok(Exit::Ok)
    }

    async fn confirm(&self, node: &str) -> Result<(), Failure> {
        let fix = "look at it with `hearth nodes`, then add --yes";
        if !stdin().is_terminal() || !stderr().is_terminal() {
            let detail = format!("removing {node} is for good, and nobody is here to confirm it");
            return Err(Failure::new(Exit::Usage, detail, fix));
        }
        let status: Status = read(&self.client.get("/api/v1/status").await?)?;
        let known = status.nodes.iter().find(|known| known.name == node || known.id.starts_with(node));
        let called = known.map_or_else(
            || node.to_owned(),
            |known| format!("{} ({}, {})", known.name, known.id.get(..16).unwrap_or(&known.id), known.state),
        );
        self.out.note(format!(
            "{called} will be out for good: its links end, its key never comes back, and what it holds and \
             did not share is its own. To have that board again it must leave and join anew.\nRemove it? [y/N]"
        ));
        let mut answer = String::new();
        let read = stdin().lock().read_line(&mut answer);
        if read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        Err(Failure::new(Exit::Refused, format!("{node} is not removed"), "answer y, or add --yes"))
    }
}
