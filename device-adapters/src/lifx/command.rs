//! One command on its way: what it asks for, which Sets carry it, and how it may end.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{
    ColorMode, CommandId, KelvinRange, LightChange, LightState, NO_EFFECT, Tolerance, Zone, color,
};

use super::basis::{Base, Needs};
use super::layout::Layout;
use super::pace::patience;
use super::wire::{Effect, Hsbk, Request};

/// How long after the end of a transition the state is read: bulbs end a fade a little late.
const AFTER_TRANSITION: Duration = Duration::from_millis(50);
/// How long to wait before a bulb that acknowledged and shows something else is told again.
const TELL_AGAIN: Duration = Duration::from_millis(400);
/// How often a Set that nobody asked for is tried: a bulb that does not know it need not say so.
const OPTIONAL_TRIES: u32 = 4;

/// What the messages of a command depend on, beside the command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means {
    /// The whites that the bulb has.
    pub(crate) whites: KelvinRange,
    /// How its zones lie.
    pub(crate) layout: Layout,
    /// Whether it may be running an effect, as far as is known. That it does is not known before it was read.
    pub(crate) runs_effect: bool,
}

/// A Set, until it is acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The message.
    pub(crate) request: Request,
    /// Whether somebody asked for it: the command does without the others.
    required: bool,
    acknowledged: bool,
    due: Instant,
    tries: u32,
}

impl Step {
    fn new(now: Instant, request: Request, required: bool) -> Self {
        Self { request, required, acknowledged: false, due: now, tries: 0 }
    }

    fn is_open(&self) -> bool {
        !self.acknowledged && (self.required || self.tries < OPTIONAL_TRIES)
    }
}

/// What a command needs to be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The state, to know what the command leaves as it is.
    Base,
    /// The Set of that index.
    Set(usize),
    /// The state, to confirm.
    ReadBack,
}

/// What a read-back after the acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The bulb shows what was asked for.
    Confirmed,
    /// It does not, or not yet.
    NotYet,
}

/// A command on its way.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    /// Its id.
    pub(crate) id: CommandId,
    /// What it asks for, with what it took over from the commands that it superseded.
    pub(crate) wanted: LightChange,
    /// When it ends as timed out.
    pub(crate) deadline: Instant,
    steps: Option<Vec<Step>>,
    sent: bool,
    acknowledged: bool,
    /// How many Sets had been sent when its own began: only a later one's acknowledgement counts.
    since: u64,
    /// When its transition ends; known from the last acknowledgement on.
    settled_at: Instant,
    due: Instant,
    tries: u32,
    mismatches: u32,
    last_read: Option<LightState>,
}

impl InFlight {
    /// A command that was just received, when `since` Sets had been sent.
    pub(crate) fn new(
        id: CommandId,
        wanted: LightChange,
        deadline: Instant,
        now: Instant,
        since: u64,
    ) -> Self {
        Self {
            id,
            wanted,
            deadline,
            steps: None,
            sent: false,
            acknowledged: false,
            since,
            settled_at: now,
            due: now,
            tries: 0,
            mismatches: 0,
            last_read: None,
        }
    }

    /// What must be known before it is sent: a message says more than the command does.
    ///
    /// `LightSetColor` always carries the whole colour, and a bulb that fades up from dark must take its colour
    /// first; a message for a tile holds all of its zones.
    pub(crate) fn needs(&self, layout: Layout) -> Needs {
        let wanted = &self.wanted;
        let complete = match (wanted.brightness, wanted.color) {
            (None, None) => wanted.zones.is_some(),
            (Some(_), None) => layout != Layout::Point, // there is a message for the brightness alone
            (brightness, _) => brightness.is_some(),
        };
        let fades_up = wanted.on == Some(true) && wanted.transition_ms > 0;
        let painted = wanted.zones.iter().flatten().map(|zone| usize::from(zone.count)).sum();
        Needs { light: self.touches_color() && (!complete || fades_up), zones: layout.kept(painted) }
    }

    fn touches_color(&self) -> bool {
        let wanted = &self.wanted;
        wanted.brightness.is_some() || wanted.color.is_some() || wanted.zones.is_some()
    }

    /// Makes the Sets, now that what they need is known: the colour and power, and the colours of the zones that
    /// are kept.
    pub(crate) fn plan(&mut self, now: Instant, base: Option<&Base>, kept: &[Hsbk], means: Means) {
        let wanted = &self.wanted;
        let from_dark = wanted.on == Some(true) && base.is_some_and(|base| !base.on);
        let fade = if from_dark { 0 } else { wanted.transition_ms };
        let mut steps = Vec::with_capacity(4);
        // An effect hides colours, so one that runs ends when a colour is asked for.
        if wanted.effect.is_none() && self.shows_colors() && means.runs_effect {
            let off = means.layout.set_effect(Effect::Off);
            steps.extend(off.map(|off| Step::new(now, off, false)));
        }
        let mut requests = self.color_sets(base, kept, means, fade);
        let effect = wanted.effect.as_deref().map(Effect::named);
        requests.extend(effect.and_then(|effect| means.layout.set_effect(effect)));
        requests.extend(wanted.on.map(|on| Request::LightSetPower(on, wanted.transition_ms)));
        steps.extend(requests.into_iter().map(|request| Step::new(now, request, true)));
        self.steps = Some(steps);
    }

    fn color_sets(&self, base: Option<&Base>, kept: &[Hsbk], means: Means, fade: u32) -> Vec<Request> {
        let wanted = &self.wanted;
        if let Some(zones) = &wanted.zones {
            let run =
                |zone: &Zone| (zone.count, colored(Some(zone.color), zone.brightness, None, means.whites));
            let runs: Vec<_> = zones.iter().map(run).collect();
            return means.layout.paint(&runs, kept, fade);
        }
        match (wanted.color, wanted.brightness) {
            (None, None) => Vec::new(),
            // Each zone keeps the colour that it has.
            (None, Some(brightness)) if means.layout != Layout::Point => {
                vec![Request::SetBrightness(brightness, fade)]
            }
            _ => vec![Request::LightSetColor(target(wanted, base, means.whites), fade)],
        }
    }

    fn shows_colors(&self) -> bool {
        self.wanted.color.is_some() || self.wanted.zones.is_some()
    }

    /// What to send next and when.
    pub(crate) fn need(&self) -> (Instant, Need) {
        let Some(steps) = &self.steps else { return (self.due, Need::Base) };
        let prepares = |step: &Step| step.is_open() && step.request.is_preparation();
        let all = !steps.iter().any(prepares);
        let open = steps.iter().enumerate().filter(|(_, step)| step.is_open() && (all || prepares(step)));
        match open.min_by_key(|(_, step)| step.due) {
            Some((index, step)) => (step.due, Need::Set(index)),
            None => (self.due.max(self.settled_at), Need::ReadBack),
        }
    }

    /// The Set of that index, which is being sent now.
    pub(crate) fn send_step(&mut self, now: Instant, index: usize) -> Option<Request> {
        let step = self.steps.as_mut()?.get_mut(index)?;
        step.due = now + patience(step.tries);
        step.tries += 1;
        Some(step.request.clone())
    }

    /// A read is being sent now.
    pub(crate) fn send_read(&mut self, now: Instant) {
        self.due = now + patience(self.tries);
        self.tries += 1;
    }

    /// Notes that the first Set goes out; true the first time.
    pub(crate) fn first_sent(&mut self) -> bool {
        !std::mem::replace(&mut self.sent, true)
    }

    /// The `number`-th Set, a `request`, was acknowledged. True when with it, for the first time,
    /// all of this command's are.
    pub(crate) fn acknowledge(&mut self, now: Instant, number: u64, request: &Request) -> bool {
        if number <= self.since {
            return false; // of an older command, or of an earlier attempt that did not last
        }
        let Some(steps) = &mut self.steps else { return false };
        let Some(step) = steps.iter_mut().find(|step| step.request == *request && !step.acknowledged) else {
            return false;
        };
        step.acknowledged = true;
        if steps.iter().any(|step| step.required && !step.acknowledged) {
            return false;
        }
        let longest = steps.iter().map(|step| step.request.fade()).max().unwrap_or_default();
        let longest = Duration::from_millis(u64::from(longest));
        self.settled_at = if longest.is_zero() { now } else { now + longest + AFTER_TRANSITION };
        (self.due, self.tries) = (now, 0);
        !std::mem::replace(&mut self.acknowledged, true)
    }

    /// The bulb does not know that Set. Whether the command fails by that.
    pub(crate) fn refused(&mut self, request: &Request) -> bool {
        let Some(step) = self.steps.iter_mut().flatten().find(|step| step.request == *request) else {
            return false; // of an older command
        };
        step.tries = OPTIONAL_TRIES;
        step.required
    }

    /// Whether no Set that it needs waits to be sent or acknowledged, so that what is read now is its effect.
    pub(crate) fn is_acknowledged(&self) -> bool {
        let done = |step: &Step| step.acknowledged || !step.required;
        self.steps.as_ref().is_some_and(|steps| steps.iter().all(done))
    }

    /// When its transition ends, once all is acknowledged.
    pub(crate) fn settled_at(&self) -> Option<Instant> {
        self.is_acknowledged().then_some(self.settled_at)
    }

    /// Judges a state that was asked for at `asked_at`, after every Set was acknowledged; `sets`
    /// have been sent by now.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        asked_at: Instant,
        sets: u64,
        state: &LightState,
        layout: Layout,
    ) -> Verdict {
        if asked_at < self.settled_at {
            return Verdict::NotYet; // still fading: neither proof nor disproof
        }
        if self.is_shown_by(state) {
            return Verdict::Confirmed;
        }
        self.last_read = Some(state.clone());
        self.mismatches += 1;
        // Once it may be late; after that it is told again, because another's Set, or our own
        // older one that was delayed on the way, may have arrived last.
        if self.mismatches > 1 {
            self.since = sets;
            self.tell_again(now + TELL_AGAIN, state, layout);
        }
        Verdict::NotYet
    }

    fn tell_again(&mut self, at: Instant, state: &LightState, layout: Layout) {
        let hidden = self.wanted.effect.is_none() && self.shows_colors() && state.effect.is_some();
        let Some(steps) = &mut self.steps else { return };
        for step in steps.iter_mut() {
            step.request = step.request.clone().without_fade();
            (step.acknowledged, step.tries, step.due) = (false, 0, at);
        }
        // Somebody else has started an effect since the plan was made.
        let off = layout.set_effect(Effect::Off).filter(|_| hidden);
        if let Some(off) = off.filter(|off| steps.iter().all(|step| step.request != *off)) {
            steps.insert(0, Step::new(at, off, false));
        }
    }

    /// Whether the state shows what was asked for. While an effect runs the colours are those of the effect, another
    /// each moment: then power and effect tell, and colours that were asked for are not to be seen.
    fn is_shown_by(&self, state: &LightState) -> bool {
        let wanted = self.wanted.clone();
        let asked = match wanted.effect.as_deref() {
            None if self.shows_colors() => LightChange { effect: Some(NO_EFFECT.to_owned()), ..wanted },
            None | Some(NO_EFFECT) => wanted,
            Some(_) => LightChange { brightness: None, color: None, zones: None, ..wanted },
        };
        asked.matches(state, &Tolerance::default())
    }

    /// Why it timed out, for people.
    pub(crate) fn why_timed_out(&self, now: Instant) -> String {
        match (&self.last_read, self.acknowledged) {
            (Some(read), _) => format!(
                "the bulb acknowledged, but reads back {} instead of {}",
                describe(&as_change(read)),
                describe(&self.wanted)
            ),
            (None, true) if now < self.settled_at => {
                "the bulb acknowledged, but its transition lasts longer than the deadline".to_owned()
            }
            (None, true) => "the bulb acknowledged, but answered no read-back before the deadline".to_owned(),
            (None, false) if self.sent => "the bulb did not acknowledge before the deadline".to_owned(),
            (None, false) => {
                let without = match self.wanted.zones {
                    Some(_) => "",
                    None => " (give both brightness and color to do without)",
                };
                format!(
                    "the bulb did not tell its state, which the change builds on, before the deadline{without}"
                )
            }
        }
    }
}

/// The whole colour that `wanted` leads to.
fn target(wanted: &LightChange, base: Option<&Base>, whites: KelvinRange) -> Hsbk {
    let was = base.map(|base| base.hsbk);
    let brightness = wanted.brightness.or(was.map(|was| was.brightness)).unwrap_or(u16::MAX);
    colored(wanted.color, brightness, was, whites)
}

/// A colour in the bulb's terms; without one, the colour that it has.
fn colored(color: Option<ColorMode>, brightness: u16, was: Option<Hsbk>, whites: KelvinRange) -> Hsbk {
    let neutral = |kelvin: u16| kelvin.max(whites.min_k).min(whites.max_k);
    let was = was.unwrap_or(Hsbk { hue: 0, saturation: 0, brightness, kelvin: neutral(3_500) });
    match color {
        None | Some(ColorMode::None) => Hsbk { brightness, ..was },
        Some(ColorMode::Temperature { kelvin }) => Hsbk { saturation: 0, brightness, kelvin, ..was },
        Some(ColorMode::Color(xy)) => {
            let (hue, saturation) = color::xy_to_hue_saturation(xy);
            // Saturation 0 would be the other mode; and the white that a colour is mixed with is
            // D65 in the model, so the bulb mixes with the nearest that it has.
            Hsbk { hue, saturation: saturation.max(1), brightness, kelvin: neutral(6_500) }
        }
    }
}

fn as_change(state: &LightState) -> LightChange {
    let is_whole = state.zones.is_none();
    LightChange {
        on: Some(state.on),
        brightness: Some(state.brightness).filter(|_| is_whole),
        color: Some(state.color).filter(|_| is_whole),
        zones: state.zones.clone(),
        effect: state.effect.clone(),
        ..LightChange::default()
    }
}

fn describe(change: &LightChange) -> String {
    let on = change.on.map(|on| if on { "on".to_owned() } else { "off".to_owned() });
    let brightness = change.brightness.map(describe_brightness);
    let color = change.color.and_then(describe_color);
    let zones = change.zones.as_deref().map(describe_zones);
    let effect = change.effect.as_ref().map(|effect| format!("effect {effect}"));
    [on, brightness, color, zones, effect].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn describe_brightness(brightness: u16) -> String {
    format!("brightness {} %", color::to_percent(brightness))
}

fn describe_color(color: ColorMode) -> Option<String> {
    let fraction = |value| f64::from(value) / 65_535.0;
    match color {
        ColorMode::None => None,
        ColorMode::Temperature { kelvin } => Some(format!("{kelvin} K")),
        ColorMode::Color(xy) => Some(format!("color x {:.3} y {:.3}", fraction(xy.x), fraction(xy.y))),
    }
}

/// The first few runs: enough to see what is different.
fn describe_zones(zones: &[Zone]) -> String {
    const SHOWN: usize = 4;
    let run = |zone: &Zone| {
        let color = describe_color(zone.color).map(|color| format!("{color} ")).unwrap_or_default();
        format!("{} zones of {color}{}", zone.count, describe_brightness(zone.brightness))
    };
    let more = if zones.len() > SHOWN { " and more" } else { "" };
    zones.iter().take(SHOWN).map(run).collect::<Vec<_>>().join(", ") + more
}
