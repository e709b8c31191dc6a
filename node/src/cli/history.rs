//! `hearth history`: what a device was, with a small plot of each series.

use std::{collections::BTreeMap, io};

use serde::Deserialize;
use serde_json::Value;

use super::Session;
use super::args::HistoryArgs;
use super::client::segment;
use super::exit::Exit;
use super::model::{moment, read};
use super::output::{Done, printable};
use super::table::Table;
use crate::config::duration::show_duration;

/// Columns of a plot where nobody knows how wide the terminal is.
const USUAL_WIDTH: usize = 60;
/// The least and the most columns of a plot.
const WIDTHS: std::ops::RangeInclusive<usize> = 10..=200;
/// From low to high.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `GET /api/v1/history/{device}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct History {
    device: String,
    since: Value,
    until: Value,
    step_s: u64,
    series: BTreeMap<String, Series>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Series {
    kind: String,
    name: String,
    unit: String,
    decimals: usize,
    points: Vec<Vec<Value>>,
    last: Option<f64>,
}

impl Session {
    pub(super) async fn history(&self, args: &HistoryArgs) -> Done<Exit> {
        let terminal = terminal_width();
        // More than there is room for: how much the rest of the line takes shows when the answer is here.
        let fitting = if self.out.json { None } else { Some(terminal.unwrap_or(USUAL_WIDTH)) };
        let fitting = fitting.map(|width| width.clamp(*WIDTHS.start(), *WIDTHS.end()));
        let points = args.points.map(usize::from).or(fitting);
        let given = [
            ("since", Some(args.since.clone())),
            ("until", args.until.clone()),
            ("sensor", args.sensor.clone()),
            ("points", points.map(|points| points.to_string())),
        ];
        let given =
            given.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(&value?))));
        let query = given.collect::<Vec<_>>().join("&");
        let answer = self.client.get(&format!("/api/v1/history/{}?{query}", segment(&args.name))).await?;
        let history: History = read(&answer)?;
        self.out.either(&answer, || shown(&history, terminal))?;
        Ok(Exit::Ok)
    }
}

/// How wide the terminal is; none when stdout is none.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

fn shown(history: &History, terminal: Option<usize>) -> String {
    let time = |value: &Value| moment(value).map(|at| format!("{at:.0}")).unwrap_or_default();
    let head = format!("{}  {} to {}", history.device, time(&history.since), time(&history.until));
    if history.series.is_empty() {
        return printable(&format!("{head}\nnothing is known of this time"));
    }
    let beside = table(history, |_, _| String::new()).lines().map(|line| line.chars().count()).max();
    let room = terminal.map_or(USUAL_WIDTH, |width| width.saturating_sub(beside.unwrap_or(0)));
    let columns = columns(history, room.clamp(*WIDTHS.start(), *WIDTHS.end()));
    let column = std::time::Duration::from_secs(span_s(history).div_ceil(columns.max(1) as u64));
    let plots = table(history, |key, series| match series.kind.as_str() {
        "numeric" => sparkline(history, series, columns),
        _ => timeline(history, series, columns, key == "availability"),
    });
    format!("{}, {} a column\n{plots}", printable(&head), show_duration(column))
}

fn table(history: &History, plot: impl Fn(&str, &Series) -> String) -> String {
    let mut table = Table::new(&["SERIES", "UNIT", ">MIN", ">MEAN", ">MAX", ">LAST", "PLOT"]);
    for (key, series) in &history.series {
        let name = if series.name.is_empty() { key.clone() } else { series.name.clone() };
        let [min, mean, max, last] = figures(series);
        table.plain([name, series.unit.clone(), min, mean, max, last, plot(key, series)]);
    }
    table.render(false)
}

/// How many columns the plots of an answer have.
fn columns(history: &History, width: usize) -> usize {
    let stretches = span_s(history).div_ceil(history.step_s.max(1));
    usize::try_from(stretches).unwrap_or(width).clamp(1, width)
}

fn span_s(history: &History) -> u64 {
    let second = |value: &Value| moment(value).map_or(0, |at| at.as_second());
    u64::try_from(second(&history.until).saturating_sub(second(&history.since))).unwrap_or(0).max(1)
}

/// The column of a time in milliseconds since 1970.
fn column(history: &History, at: &Value, columns: usize) -> Option<usize> {
    let since = moment(&history.since)?.as_millisecond();
    let after = u128::try_from(at.as_i64()?.saturating_sub(since).max(0)).ok()?;
    let place = after * columns as u128 / (u128::from(span_s(history)) * 1_000);
    usize::try_from(place).ok().map(|place| place.min(columns.saturating_sub(1)))
}

/// Least, mean, greatest and last, as people read them; of a state the last alone.
fn figures(series: &Series) -> [String; 4] {
    let number = |number: Option<f64>| number.map(|n| format!("{n:.*}", series.decimals)).unwrap_or_default();
    if series.kind != "numeric" {
        let last = series.points.last().and_then(|point| point.get(1)).map(word).unwrap_or_default();
        return [String::new(), String::new(), String::new(), last];
    }
    let of = |at: usize| series.points.iter().filter_map(move |point| point.get(at)?.as_f64());
    let count = of(2).count();
    let mean = (count > 0).then(|| of(2).sum::<f64>() / count as f64);
    [number(of(1).reduce(f64::min)), number(mean), number(of(3).reduce(f64::max)), number(series.last)]
}

fn word(value: &Value) -> String {
    match value {
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::Null => "?".to_owned(),
        other => super::values::show(other),
    }
}

/// The means as heights between the least and the greatest.
fn sparkline(history: &History, series: &Series, columns: usize) -> String {
    let mut sums = vec![(0.0, 0_u32); columns];
    for point in &series.points {
        let column = point.first().and_then(|at| column(history, at, columns));
        let mean = point.get(2).and_then(Value::as_f64);
        if let (Some(place), Some(mean)) = (column.and_then(|column| sums.get_mut(column)), mean) {
            *place = (place.0 + mean, place.1 + 1);
        }
    }
    let means: Vec<Option<f64>> =
        sums.iter().map(|(sum, count)| (*count > 0).then(|| sum / f64::from(*count))).collect();
    let least = means.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let most = means.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    means.iter().map(|mean| mean.map_or(' ', |mean| height(mean, least, most))).collect()
}

fn height(mean: f64, least: f64, most: f64) -> char {
    let share = if most > least { (mean - least) / (most - least) } else { 0.5 };
    let bounds = HEIGHTS.iter().zip(1_u8..);
    // The first height whose upper bound is not below it.
    bounds.filter(|(_, nth)| share <= f64::from(*nth) / 8.0).map(|(height, _)| *height).next().unwrap_or('█')
}

/// A bar where it is on, a line where it is off, the first letter of any other word. Of a column in which it was
/// several things the one that is furthest from off.
fn timeline(history: &History, series: &Series, columns: usize, is_availability: bool) -> String {
    let sign = |value: &Value| match value {
        Value::Bool(true) => '█',
        Value::Bool(false) => '▁',
        Value::String(word) if is_availability => match word.as_str() {
            "online" => '█',
            "offline" => '▁',
            _ => '▄',
        },
        Value::String(word) => word.chars().next().unwrap_or(' '),
        _ => ' ',
    };
    let changes = series
        .points
        .iter()
        .filter_map(|point| Some((column(history, point.first()?, columns)?, sign(point.get(1)?))));
    let mut line = vec![' '; columns];
    let (mut from, mut now) = (0, ' ');
    for (at, next) in changes {
        // It was `now` up to this column, part of which it was.
        for place in line.iter_mut().take(at + 1).skip(from) {
            *place = (*place).max(now);
        }
        (from, now) = (at, next);
    }
    for place in line.iter_mut().skip(from) {
        *place = (*place).max(now);
    }
    line.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn history(series: Value) -> History {
        read(&json!({
            "device": "device/x", "since": "2026-11-22T06:00:00.000Z", "until": "2026-11-22T06:10:00.000Z",
            "step_s": 60, "series": series,
        }))
        .unwrap()
    }

    /// Milliseconds of a minute after the beginning.
    fn minute(minute: i64) -> i64 {
        1_795_327_200_000 + minute * 60_000
    }

    #[test]
    fn numbers_are_heights_and_where_nothing_was_known_is_nothing() {
        let point = |at: i64, mean: f64| json!([minute(at), mean - 1.0, mean, mean + 1.0]);
        let points = [point(0, 10.0), point(1, 20.0), point(2, 30.0), point(5, 24.0), point(9, 10.0)];
        let shown = shown(
            &history(json!({"t": {
                "kind": "numeric", "name": "Temperature", "unit": "°C", "decimals": 1, "points": points, "last": 10.5,
            }})),
            None,
        );
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines.first(),
            Some(&"device/x  2026-11-22T06:00:00Z to 2026-11-22T06:10:00Z, 1m a column")
        );
        assert_eq!(lines.get(2), Some(&"Temperature  °C    9.0  18.8  31.0  10.5  ▁▄█  ▆   ▁"));
    }

    #[test]
    fn states_are_bars_and_words_are_letters() {
        let on = json!({"kind": "state", "name": "On", "points": [
            [minute(0), false], [minute(2), true], [minute(4), null], [minute(6), true], [minute(6) + 9_000, false],
        ]});
        let phase = json!({"kind": "state", "points": [[minute(1), "rinse"], [minute(5), "spin"]]});
        let available = json!({"kind": "state", "points": [[minute(0), "online"], [minute(8), "offline"]]});
        let history = history(json!({"on": on, "phase": phase, "availability": available}));
        let plot = |key: &str| {
            let series = history.series.get(key).unwrap();
            timeline(&history, series, 10, key == "availability")
        };
        assert_eq!(plot("on"), "▁▁███ █▁▁▁");
        assert_eq!(plot("phase"), " rrrrsssss");
        assert_eq!(plot("availability"), "█████████▁");
        assert!(shown(&history, Some(80)).contains("off"));
    }

    #[test]
    fn what_makes_no_sense_is_shown_as_nothing() {
        for series in [
            json!({}),
            json!({"a": {"kind": "numeric", "points": [[], [1], ["x", 1, 2, 3], [1, null, null, null]]}}),
            json!({"a": {"kind": "state", "points": [[], [1], [null, true], [i64::MAX, true]]}}),
        ] {
            assert!(!shown(&history(series), Some(1)).is_empty());
        }
        assert!(shown(&History::default(), None).contains("nothing is known"));
        let flat: String = [1.0, 1.0].iter().map(|mean| height(*mean, 1.0, 1.0)).collect();
        assert_eq!(flat, "▄▄");
    }
}
