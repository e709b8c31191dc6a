//! `hearth audit`: who did what on this node.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;

use super::Session;
use super::args::AuditArgs;
use super::client::segment;
use super::exit::{Exit, Failure};
use super::model::{moment, read};
use super::output::Done;
use super::table::Table;

/// How often it is looked for what is new.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A record as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    at: Value,
    who: String,
    from: String,
    via: String,
    what: String,
    object: String,
    outcome: String,
    count: u64,
}

impl Session {
    pub(super) async fn audit(&self, args: &AuditArgs) -> Done<Exit> {
        let answer = self.records(args, None).await?;
        if !args.follow {
            self.out.either(&answer, || show(&answer))?;
            return Ok(Exit::Ok);
        }
        let mut last = self.tell(&answer, 0)?;
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let answer = self.records(args, Some(last)).await?;
            last = self.tell(&answer, last)?;
        }
    }

    async fn records(&self, args: &AuditArgs, after: Option<u64>) -> Result<Value, Failure> {
        let given = [
            ("limit", Some(args.limit.to_string())),
            ("after", after.map(|after| after.to_string())),
            ("who", args.who.clone()),
            ("object", args.object.clone()),
            ("since", args.since.clone()),
        ];
        let given =
            given.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(&value?))));
        self.client.get(&format!("/api/v1/audit?{}", given.collect::<Vec<_>>().join("&"))).await
    }

    /// Prints each record; answers with the number of the last one.
    fn tell(&self, answer: &Value, before: u64) -> Done<u64> {
        let mut last = before;
        for record in records(answer) {
            last = last.max(record.get("seq").and_then(Value::as_u64).unwrap_or(0));
            self.out.either(record, || line(record))?;
        }
        Ok(last)
    }
}

fn records(answer: &Value) -> &[Value] {
    answer.get("records").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The cells of a record.
fn cells(record: &Value) -> [String; 6] {
    let line: Line = read(record).unwrap_or_default();
    let at = moment(&line.at).map(|at| at.to_zoned(TimeZone::system()).strftime("%F %T").to_string());
    let via = if line.via.is_empty() { String::new() } else { format!(" via {}", line.via) };
    let often = if line.count > 1 { format!(" ({} times)", line.count) } else { String::new() };
    let from = format!("{}{via}", line.from);
    [at.unwrap_or_default(), line.who, from, line.what, line.object, format!("{}{often}", line.outcome)]
}

fn line(record: &Value) -> String {
    let cells = cells(record);
    let told: Vec<&str> = cells.iter().map(String::as_str).filter(|cell| !cell.is_empty()).collect();
    super::output::printable(&told.join("  ")).replace('\n', " ")
}

fn show(answer: &Value) -> String {
    let mut table = Table::new(&["WHEN", "WHO", "FROM", "WHAT", "OBJECT", "OUTCOME"]);
    records(answer).iter().for_each(|record| table.plain(cells(record)));
    let mut text = if table.is_empty() { "nothing was recorded".to_owned() } else { table.render(false) };
    let lost = answer.get("lost").and_then(Value::as_u64).unwrap_or(0);
    if lost > 0 {
        text.push_str(&format!("\n{lost} entries were lost: `hearth doctor` says what to free or mend"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_says_who_from_where_what_and_how_often() {
        let record = json!({"seq": 7, "at": "2026-11-29T16:30:00.000Z", "who": "user:ann", "from": "198.51.100.7",
            "via": "10.0.0.2", "what": "command", "object": "device/lamp", "outcome": "accepted", "count": 3});
        let shown = line(&record);
        assert!(
            shown.ends_with("user:ann  198.51.100.7 via 10.0.0.2  command  device/lamp  accepted (3 times)"),
            "{shown}"
        );
        let table = show(&json!({"records": [record], "lost": 2}));
        assert!(table.contains("OUTCOME") && table.contains("2 entries were lost"), "{table}");
        assert_eq!(show(&json!({"records": []})), "nothing was recorded");
        let hostile = json!({"who": "a\u{1b}[2J", "what": "x\ny"});
        assert!(!line(&hostile).contains(['\u{1b}', '\n']));
    }
}
