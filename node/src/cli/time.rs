//! `hearth time`.

use hyper::Method;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Value, json};

use super::Session;
use super::args::TimeCommand;
use super::exit::{Exit, Failure};
use super::output::Done;

const PATH: &str = "/api/v1/time";

impl Session {
    pub(super) async fn time(&self, command: Option<&TimeCommand>) -> Done<Exit> {
        let answer = match command {
            None => self.client.get(PATH).await?,
            Some(TimeCommand::Set { time }) => {
                let at = moment(time, Timestamp::now(), &TimeZone::system())?;
                self.client.call(Method::PUT, PATH, Some(&json!({"time": at.to_string()}))).await?
            }
        };
        self.out.either(&answer, || show(&answer, &TimeZone::system()))?;
        Ok(Exit::Ok)
    }
}

/// What a person wrote: `now`, a time of the clock on the wall, or one with its offset.
fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, Failure> {
    if text == "now" {
        return Ok(now);
    }
    let local =
        |text: &str| text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    text.parse().ok().or_else(|| local(text)).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("`{text}` is no time"),
            "write `2026-11-29 17:30`, a time with its offset such as 2026-11-29T17:30:00+01:00, or now",
        )
    })
}

fn show(answer: &Value, zone: &TimeZone) -> String {
    let text = |member: &str| answer.get(member).and_then(Value::as_str).unwrap_or_default();
    let time = text("time").parse::<Timestamp>().map(|at| at.to_zoned(zone.clone()));
    let time = time.map_or_else(|_| text("time").to_owned(), |at| at.strftime("%F %T %:z").to_string());
    let mut lines = vec![format!("{time}, by {}", text("detail"))];
    if let Some(peer) = answer.get("peer").and_then(Value::as_str) {
        lines.push(format!("it follows {}", super::output::printable(peer)));
    }
    let ahead_s = answer.get("ahead_of_wall_clock_ms").and_then(Value::as_i64).unwrap_or_default() / 1_000;
    if ahead_s != 0 {
        let side = if ahead_s > 0 { "behind" } else { "ahead" };
        lines.push(format!("the clock of this machine is {} s {side}", ahead_s.abs()));
    }
    if answer.get("trusted") == Some(&Value::Bool(false)) {
        lines.push(
            "nothing is done by the time of day until it is known: hearth time set \"2026-11-29 17:30\""
                .to_owned(),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_person_writes_the_time_as_the_wall_shows_it() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let of = |text: &str| moment(text, now, &zone).map(|at| at.to_string()).ok();
        assert_eq!(of("now").unwrap(), now.to_string());
        assert_eq!(of("2026-11-29 17:30").unwrap(), "2026-11-29T16:30:00Z");
        assert_eq!(of("2026-11-29T17:30:05-05:00").unwrap(), "2026-11-29T22:30:05Z");
        assert_eq!(of("17:30"), None);
        assert_eq!(of("2026-02-30 10:00"), None);
    }

    #[test]
    fn what_the_time_rests_on_is_told_and_what_is_held_back() {
        let zone = TimeZone::UTC;
        let held = json!({"time": "2026-11-29T16:30:00.000Z", "trusted": false, "rests_on": "nothing",
            "detail": "nothing", "peer": null, "ahead_of_wall_clock_ms": 61_000});
        let shown = show(&held, &zone);
        assert!(shown.starts_with(
            "2026-11-29 16:30:00 +00:00, by nothing\nthe clock of this machine is 61 s behind\n"
        ));
        assert!(shown.contains("hearth time set"), "{shown}");
        let led = json!({"time": "2026-11-29T16:30:00.000Z", "trusted": true, "rests_on": "peer",
            "detail": "the time of a node", "peer": "hall", "ahead_of_wall_clock_ms": 0});
        assert_eq!(show(&led, &zone), "2026-11-29 16:30:00 +00:00, by the time of a node\nit follows hall");
    }
}
