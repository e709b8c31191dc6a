//! From the series of MET Norway to what is now, the hours and the days. Pure.
//!
//! The service tells steps in UTC, hourly for two or three days and then each six hours; days are ours to make, in the
//! local time of the place.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::model::{Condition, Day, Forecast, Hour, Measurement, weather::MOST_DAYS, weather::MOST_HOURS};
use crate::weather::{CONDITION, View};

use super::wire::{Span, Step};

/// The sensors that [`view`] fills.
pub(super) const SENSORS: [&str; 10] = [
    "temperature",
    "dew_point",
    "humidity",
    "pressure",
    "wind_speed",
    "wind_gust",
    "wind_bearing",
    "cloud_cover",
    "precipitation",
    "uv_index",
];

const HOUR: i64 = 60 * 60;
const SIX_HOURS: i64 = 6 * HOUR;
/// A later day of which less is told is left out: the series ends somewhere within its last day.
const LEAST_OF_A_DAY: i64 = 18 * HOUR;
/// The hours of the local time in which people look at the sky.
const WAKING: std::ops::Range<i8> = 6..22;

/// What the series says at a moment. A step holds until the next; the first also before, and the last for six hours.
pub(super) fn view(steps: &[Step], zone: &TimeZone, now: i64) -> View {
    let begun = steps.iter().rposition(|step| step.at <= now).unwrap_or(0);
    let steps = steps.get(begun..).unwrap_or_default();
    let mut view = View::default();
    let Some(step) = steps.first().filter(|step| steps.len() > 1 || step.at + SIX_HOURS > now) else {
        return view;
    };
    view.number("temperature", step.now.air_temperature);
    view.number("dew_point", step.now.dew_point_temperature);
    view.number("humidity", step.now.relative_humidity);
    view.number("pressure", step.now.air_pressure_at_sea_level);
    view.number("wind_speed", step.now.wind_speed);
    view.number("wind_gust", step.now.wind_speed_of_gust);
    view.number("wind_bearing", step.now.wind_from_direction);
    view.number("cloud_cover", step.now.cloud_area_fraction);
    view.number("uv_index", step.now.ultraviolet_index_clear_sky);
    view.number("precipitation", step.hour.and_then(|hour| hour.precipitation));
    if let Some(condition) = condition(step) {
        view.values.insert(CONDITION, Measurement::Text(condition.word().to_owned()));
    }
    view.forecast = Forecast { hourly: hourly(steps), daily: daily(steps, zone) };
    view
}

/// What the sky does after a step, by the shortest time that the service tells it for.
fn condition(step: &Step) -> Option<Condition> {
    let spans = [step.hour, step.six_hours, step.twelve_hours];
    spans.into_iter().flatten().find_map(|span| span.condition)
}

/// The steps that are told for an hour, up to the first that is not.
fn hourly(steps: &[Step]) -> Vec<Hour> {
    let hours = steps.iter().map_while(|step| step.hour.map(|hour| (step, hour)));
    let hours = hours.map(|(step, hour)| Hour {
        at: step.at,
        condition: hour.condition,
        temperature: step.now.air_temperature,
        precipitation: hour.precipitation,
        wind_speed: step.now.wind_speed,
    });
    hours.take(MOST_HOURS).collect()
}

/// The days, of which today is what is left of it.
fn daily(steps: &[Step], zone: &TimeZone) -> Vec<Day> {
    let mut days: Vec<Making> = Vec::new();
    // Until when precipitation is counted: six hours that are told before the next step would count twice.
    let mut counted = i64::MIN;
    for (index, step) in steps.iter().enumerate() {
        let Some(local) = local(step.at, zone) else { continue };
        let Some(day) = day_of(&mut days, &local) else { break };
        let next = steps.get(index + 1).map_or(step.at, |next| next.at.min(step.at + SIX_HOURS));
        day.take(step, local.hour(), next);
        let (span, length) = match (step.hour, step.six_hours) {
            (Some(hour), _) => (hour, HOUR),
            (None, Some(six)) => (six, SIX_HOURS),
            (None, None) => continue,
        };
        rain(&mut days, span, step.at, length, counted, zone);
        counted = counted.max(step.at + length);
    }
    let told = days.into_iter().enumerate();
    let told = told.filter(|(index, day)| *index == 0 || day.told >= LEAST_OF_A_DAY);
    told.map(|(_, day)| day.made()).take(MOST_DAYS).collect()
}

/// A day while it is made.
struct Making {
    date: Date,
    at: i64,
    /// How many seconds of it the steps tell of.
    told: i64,
    day: Day,
    /// How many seconds the sky does what, while people are awake, and at night.
    waking: Vec<(Condition, i64)>,
    sleeping: Vec<(Condition, i64)>,
}

impl Making {
    fn take(&mut self, step: &Step, hour: i8, next: i64) {
        let lasts = next - step.at;
        self.told += lasts;
        let six = step.six_hours.unwrap_or_default();
        // Where steps are six hours apart the extremes lie between them.
        let between = lasts == SIX_HOURS;
        let highs = [step.now.air_temperature, six.high.filter(|_| between)];
        let lows = [step.now.air_temperature, six.low.filter(|_| between)];
        for high in highs.into_iter().flatten() {
            self.day.high = Some(self.day.high.map_or(high, |known| known.max(high)));
        }
        for low in lows.into_iter().flatten() {
            self.day.low = Some(self.day.low.map_or(low, |known| known.min(low)));
        }
        if let Some(wind) = step.now.wind_speed {
            self.day.wind_speed = Some(self.day.wind_speed.map_or(wind, |known| known.max(wind)));
        }
        if let Some(condition) = condition(step) {
            let is_waking = WAKING.contains(&hour);
            // A clear evening of winter is a part of a clear day.
            let condition =
                if is_waking && condition == Condition::ClearNight { Condition::Sunny } else { condition };
            let seen = if is_waking { &mut self.waking } else { &mut self.sleeping };
            match seen.iter_mut().find(|(known, _)| *known == condition) {
                Some((_, seconds)) => *seconds += lasts,
                None => seen.push((condition, lasts)),
            }
        }
    }

    /// What the sky does most; of a night only where nothing else is told.
    fn made(self) -> Day {
        let seen = if self.waking.is_empty() { &self.sleeping } else { &self.waking };
        let mut most: Option<(Condition, i64)> = None;
        for (condition, seconds) in seen {
            if most.is_none_or(|(_, longest)| *seconds > longest) {
                most = Some((*condition, *seconds));
            }
        }
        let condition = most.map(|(condition, _)| condition);
        let precipitation = self.day.precipitation.map(|amount| (amount * 10.0).round() / 10.0);
        Day { at: self.at, condition, precipitation, ..self.day }
    }
}

/// The day of a moment, begun where there is none; none where it has no beginning or there are enough.
fn day_of<'a>(days: &'a mut Vec<Making>, local: &Zoned) -> Option<&'a mut Making> {
    let date = local.date();
    if !days.iter().any(|day| day.date == date) {
        if days.len() > MOST_DAYS {
            return None;
        }
        let at = local.start_of_day().ok()?.timestamp().as_second();
        let day = Day { at, condition: None, high: None, low: None, precipitation: None, wind_speed: None };
        let (waking, sleeping) = (Vec::new(), Vec::new());
        days.push(Making { date, at, told: 0, day, waking, sleeping });
    }
    days.iter_mut().find(|day| day.date == date)
}

/// Adds the precipitation of a span to its days, as far as it is not counted yet.
fn rain(days: &mut Vec<Making>, span: Span, from: i64, length: i64, counted: i64, zone: &TimeZone) {
    let Some(amount) = span.precipitation else { return };
    let (mut at, end) = (from.max(counted), from + length);
    while at < end {
        let Some(local) = local(at, zone) else { return };
        let next_day = local.tomorrow().and_then(|next| next.start_of_day());
        let until = next_day.map_or(end, |next| next.timestamp().as_second().min(end));
        let Some(day) = day_of(days, &local) else { return };
        #[expect(clippy::cast_precision_loss, reason = "at most six hours in seconds")]
        let part = amount * (until - at) as f64 / length as f64;
        day.day.precipitation = Some(day.day.precipitation.unwrap_or(0.0) + part);
        if until <= at {
            return;
        }
        at = until;
    }
}

fn local(at: i64, zone: &TimeZone) -> Option<Zoned> {
    Some(Timestamp::from_second(at).ok()?.to_zoned(zone.clone()))
}
