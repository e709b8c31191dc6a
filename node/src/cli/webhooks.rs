//! `hearth automation webhook`.

use hyper::Method;
use serde_json::Value;

use super::Session;
use super::client::segment;
use super::exit::Exit;
use super::output::{Done, printable};
use super::schedules::{list, text};

impl Session {
    pub(super) async fn webhook(&self, name: &str, revoke: bool) -> Done<Exit> {
        let path = format!("/api/v1/automations/{}/webhook", segment(name));
        if revoke {
            let answer = self.client.call(Method::DELETE, &path, None).await?;
            return self.done(answer, format!("nobody can call {name} any more"));
        }
        let answer = self.client.call(Method::POST, &path, None).await?;
        let urls = urls(&answer);
        self.out.either(&answer, || printable(&urls.join("\n")))?;
        self.out.note(how_to(name, urls.first().map_or("", String::as_str)));
        Ok(Exit::Ok)
    }
}

/// Where it can be called, or its path where nobody knows an address.
fn urls(answer: &Value) -> Vec<String> {
    let urls: Vec<String> =
        list(answer, "urls").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if urls.is_empty() { vec![text(answer, "path").to_owned()] } else { urls }
}

fn how_to(name: &str, url: &str) -> String {
    format!(
        "\nIt is shown this once; one that was there before is void. Whoever has it can start {name}, with the same path\n\
         at every board:\n\n  hearth ca export --out hearth-ca.pem\n  \
         curl --cacert hearth-ca.pem -d '{{\"count\": 1}}' {url}"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_shows_each_address_and_how_to_call_one() {
        let answer = json!({"path": "/hooks/x", "urls": ["https://a:1/hooks/x", "https://b:1/hooks/x"]});
        assert_eq!(urls(&answer).len(), 2);
        assert!(how_to("hall", "https://a:1/hooks/x").contains("-d '{\"count\": 1}' https://a:1/hooks/x"));
        assert_eq!(urls(&json!({"path": "/hooks/x", "urls": []})), ["/hooks/x"]);
    }
}
