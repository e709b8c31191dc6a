//! Commands to devices: what people may say, checked against what the device can do.

mod follow;
mod later;

use std::{future::Future, sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State, http::StatusCode};
use futures_util::{StreamExt as _, stream};
use mesh_proto::{FieldName, Value};
use serde::Deserialize;
use serde_json::{Value as Any, json};
use tokio::time::Instant;

use super::{
    ApiContext,
    access::{Giver, Principal},
    color,
    devices::{Target, find_device, find_target},
    extract::{Body, Named},
    json::timestamp,
    ports::{
        By, Change, Color, Command, CommandRequest, CommandsHandle, MAX_TRANSITION_MS, PortError, Power, Zone,
    },
    problem::Problem,
    scoped::reaches,
};
use crate::{
    auth::Scope,
    service::{ObjectView, Service},
};
pub(crate) use follow::follow;
pub(super) use later::keep;
pub(crate) use later::{change_later, check_change_kept, check_kept, check_later};

const DEFAULT_DEADLINE_MS: u32 = 5_000;
/// Shortest and longest deadline, in milliseconds.
const DEADLINES_MS: std::ops::RangeInclusive<u32> = 100..=600_000;
/// A request that waits for the end is answered after so many seconds all the same.
pub(super) const MAX_WAIT_S: u64 = 25;
/// Commands that are handed to their owner at once, of the many that go together.
const AT_ONCE: usize = 16;
const MAX_KEY_BYTES: usize = 128;
/// Longest name of an effect or palette, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// White that any lamp could have, in kelvin, where the device does not tell its range.
const ANY_KELVIN: (i64, i64) = (1_000, 20_000);

/// A command as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandBody {
    device: String,
    change: ChangeBody,
    key: Option<String>,
    deadline_ms: Option<u32>,
    #[serde(default)]
    wait: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    on: Option<Any>,
    brightness: Option<f64>,
    kelvin: Option<f64>,
    color: Option<Any>,
    effect: Option<String>,
    palette: Option<String>,
    zones: Option<Vec<ZoneBody>>,
    press: Option<bool>,
    transition_ms: Option<u32>,
}

/// Zones of a strip that lie side by side and show the same.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneBody {
    count: u16,
    brightness: f64,
    kelvin: Option<f64>,
    color: Option<Any>,
}

/// What became of a command.
pub(crate) enum Taken {
    /// It is one command.
    One(Command),
    /// It is one for each device of a group or an area.
    Many(Many),
}

/// The commands to the devices of a group, an area or a scene.
pub(crate) struct Many {
    /// `group/NAME`, `area NAME` or `scene/NAME`.
    name: String,
    pub(crate) commands: Vec<Command>,
    /// Who cannot do that, and why.
    pub(crate) refused: Vec<Any>,
}

pub(super) async fn submit(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Giver(by): Giver,
    Body(body): Body<CommandBody>,
) -> Result<(StatusCode, Json<Any>), Problem> {
    check_key(&body)?;
    let wait = body.wait;
    // Listening begins before the command does, so that no step of its life is missed.
    let mut life = context.commands.life();
    match hand_in(&context.service, &context.commands, &principal.scope, body, &by).await? {
        Taken::One(mut command) => {
            if wait {
                let until = Instant::now() + Duration::from_secs(MAX_WAIT_S);
                follow(&context.commands, &mut life, std::slice::from_mut(&mut command), until).await?;
            }
            let is_over = wait && command.state.is_final();
            Ok((if is_over { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(to_json(&command))))
        }
        Taken::Many(many) => Ok((StatusCode::ACCEPTED, Json(many.to_json()))),
    }
}

/// Checks a command and hands it to the owners of what it is for, all of which must be within the scope.
pub(crate) async fn hand_in(
    service: &Service,
    commands: &CommandsHandle,
    scope: &Scope,
    body: CommandBody,
    by: &By,
) -> Result<Taken, Problem> {
    let wait = body.wait;
    let asked = body.check()?;
    match find_target(service, scope, &asked.device).await? {
        Target::Device(device) => hand_to(commands, &asked, device, by).await.map(Taken::One),
        Target::Many { name, .. } if wait => Err(Problem::invalid(
            format!("`wait` is for one device, and `{}` is {name}", asked.device),
            "leave it out, and look at each command by its id",
        )),
        Target::Many { name, devices } => {
            hand_to_all(commands, &asked, name, devices, by).await.map(Taken::Many)
        }
    }
}

/// A change in the form of the API, in the units of the node.
pub(crate) fn change_of(change: &Any) -> Result<Change, Problem> {
    let body: ChangeBody = serde_json::from_value(change.clone()).map_err(|rule| {
        Problem::invalid(
            format!("a change is not understood: {rule}"),
            "docs/devices.md tells what can be changed",
        )
    })?;
    body.check()
}

/// The same command for each device; one that cannot do that is named, and the others do.
async fn hand_to_all(
    handle: &CommandsHandle,
    asked: &Asked,
    name: String,
    devices: Vec<ObjectView>,
    by: &By,
) -> Result<Many, Problem> {
    let each = devices.into_iter().map(|device| async {
        let id = device.id.as_str().to_owned();
        (id, hand_to(handle, asked, device, by).await)
    });
    Many::of(name, each).await
}

/// Hands in commands that go together, each for one device; one that is refused is named, and the others are given.
pub(crate) async fn hand_in_each(
    service: &Service,
    handle: &CommandsHandle,
    scope: &Scope,
    name: String,
    bodies: Vec<CommandBody>,
    by: &By,
) -> Result<Many, Problem> {
    let each = bodies.into_iter().map(|body| async {
        let id = body.device.clone();
        let hand_in = async {
            let asked = body.check()?;
            hand_to(handle, &asked, find_device(service, scope, &asked.device).await?, by).await
        };
        (id, hand_in.await)
    });
    Many::of(name, each).await
}

impl Many {
    /// What became of each; an error where every one was refused.
    async fn of<F>(name: String, each: impl Iterator<Item = F>) -> Result<Self, Problem>
    where
        F: Future<Output = (String, Result<Command, Problem>)>,
    {
        let mut many = Self { name, commands: Vec::new(), refused: Vec::new() };
        let mut last = None;
        let mut each = stream::iter(each).buffered(AT_ONCE);
        while let Some((device, taken)) = each.next().await {
            match taken {
                Ok(command) => many.commands.push(command),
                Err(problem) => {
                    many.refused.push(json!({ "device": device, "detail": problem.detail() }));
                    last = Some(problem);
                }
            }
        }
        last.filter(|_| many.commands.is_empty()).map_or(Ok(many), Err)
    }

    /// The commands as readers see them.
    pub(super) fn to_json(&self) -> Any {
        let commands: Vec<_> = self.commands.iter().map(to_json).collect();
        json!({ "group": self.name, "commands": commands, "refused": self.refused })
    }
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(id): Named,
) -> Result<Json<Any>, Problem> {
    let wanted = if id.len() <= 64 { id } else { String::new() };
    let mut command = context.commands.get(wanted).await?;
    if let Some(device) = command.as_ref().map(|command| &command.device)
        && !reaches(&context.service, &principal.scope, device).await?
    {
        command = None;
    }
    let fix = "commands are kept for ten minutes after they end";
    command.map(|command| Json(to_json(&command))).ok_or_else(|| Problem::not_found("such command", fix))
}

async fn hand_to(
    commands: &CommandsHandle,
    asked: &Asked,
    device: ObjectView,
    by: &By,
) -> Result<Command, Problem> {
    check_capabilities(&device, &asked.change)?;
    let (change, key, by) = (asked.change.clone(), asked.key.clone(), by.clone());
    let request = CommandRequest { device: device.id, change, key, deadline_ms: asked.deadline_ms, by };
    commands.submit(request).await.map_err(|error| match error {
        PortError::Conflict { detail, fix } => Problem::new(
            StatusCode::CONFLICT,
            "idempotency-key",
            "The key was used for another command",
            detail,
            fix,
        ),
        other => other.into(),
    })
}

/// Refuses a command of a client by a key that is not for clients.
pub(super) fn check_key(body: &CommandBody) -> Result<(), Problem> {
    check_own_key(body.key.as_deref())
}

/// A command that makes sense.
pub(crate) struct Asked {
    device: String,
    change: Change,
    key: Option<String>,
    deadline_ms: u32,
}

impl CommandBody {
    fn check(self) -> Result<Asked, Problem> {
        let Self { key, device, change, deadline_ms, .. } = self;
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
            return Err(Problem::invalid(format!("`key` has 1 to {MAX_KEY_BYTES} bytes"), "use a UUID"));
        }
        let deadline_ms = check_deadline(deadline_ms.unwrap_or(DEFAULT_DEADLINE_MS))?;
        Ok(Asked { device, change: change.check()?, key, deadline_ms })
    }
}

/// Refuses a client's key that a run of a schedule or automation could have: whoever came first with it would keep that from
/// being given.
pub(super) fn check_own_key(key: Option<&str>) -> Result<(), Problem> {
    if key.is_some_and(|key| key.contains(['@', '#'])) {
        let detail = "`key` has `@` or `#`, which keys of the household's own runs have";
        return Err(Problem::invalid(detail, "use a UUID"));
    }
    Ok(())
}

/// A deadline in its range.
pub(crate) fn check_deadline(ms: u32) -> Result<u32, Problem> {
    if DEADLINES_MS.contains(&ms) {
        return Ok(ms);
    }
    let (min, max) = DEADLINES_MS.into_inner();
    Err(Problem::invalid(format!("`deadline_ms` is {ms}"), format!("give {min} to {max}")))
}

impl ChangeBody {
    /// The change in the units of the node.
    fn check(self) -> Result<Change, Problem> {
        let on = self.on.map(|on| power(&on)).transpose()?;
        let brightness = self.brightness.map(percent).transpose()?;
        let color = one_color(self.kelvin, self.color.as_ref())?;
        let zones = self.zones.map(|zones| zones.iter().map(ZoneBody::check).collect()).transpose()?;
        let (press, transition_ms) = (self.press.unwrap_or(false), self.transition_ms.unwrap_or(0));
        if transition_ms > MAX_TRANSITION_MS {
            let detail = format!("`transition_ms` is {transition_ms}");
            return Err(Problem::invalid(detail, format!("give at most {MAX_TRANSITION_MS} (one hour)")));
        }
        let (effect, palette) = (self.effect.map(name).transpose()?, self.palette.map(name).transpose()?);
        let change = Change { press, on, brightness, color, effect, palette, zones, transition_ms };
        if change == (Change { transition_ms, ..Change::default() }) {
            let fix = "give at least one of `on`, `brightness`, `kelvin`, `color`, `effect`, `palette`, `zones` and `press`";
            return Err(Problem::invalid("the change is empty", fix));
        }
        if change.press && change != (Change { press: true, ..Change::default() }) {
            return Err(Problem::invalid("`press` is given with something else", "a press stands alone"));
        }
        Ok(change)
    }
}

impl ZoneBody {
    fn check(&self) -> Result<Zone, Problem> {
        let color = one_color(self.kelvin, self.color.as_ref())?.ok_or_else(|| {
            Problem::invalid("a zone has neither `kelvin` nor `color`", "give each zone one of them")
        })?;
        Ok(Zone { count: self.count, color, brightness: percent(self.brightness)? })
    }
}

/// The colour that is given in one of its two ways.
fn one_color(kelvin: Option<f64>, color: Option<&Any>) -> Result<Option<Color>, Problem> {
    match (kelvin, color) {
        (Some(_), Some(_)) => {
            Err(Problem::invalid("both `kelvin` and `color` are given", "a light shows one of them"))
        }
        (Some(kelvin), None) => Ok(Some(Color::Temperature(self::kelvin(kelvin, ANY_KELVIN)?))),
        (None, Some(given)) => chromaticity(given).map(Some),
        (None, None) => Ok(None),
    }
}

fn power(on: &Any) -> Result<Power, Problem> {
    match on {
        Any::Bool(true) => Ok(Power::On),
        Any::Bool(false) => Ok(Power::Off),
        Any::String(word) if word == "toggle" => Ok(Power::Toggle),
        _ => Err(Problem::invalid("`on` is none of true, false and \"toggle\"", "give one of the three")),
    }
}

/// The name of an effect or palette.
fn name(name: String) -> Result<String, Problem> {
    if (1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(name);
    }
    let detail =
        format!("an effect or palette has a name of 1 to {MAX_NAME_BYTES} bytes, not {}", name.len());
    Err(Problem::invalid(detail, "give one that the light knows, or the effect `none`"))
}

fn percent(percent: f64) -> Result<u16, Problem> {
    if (0.0..=100.0).contains(&percent) {
        return Ok(color::scale(percent / 100.0));
    }
    Err(Problem::invalid(format!("`brightness` is {percent}"), "give a percentage, 0 to 100"))
}

fn kelvin(kelvin: f64, (min, max): (i64, i64)) -> Result<u16, Problem> {
    let whole = Some(kelvin.round()).filter(|k| (0.0..=65_535.0).contains(k));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just checked")]
    let whole = whole.map(|k| k as u16).filter(|k| (min..=max).contains(&i64::from(*k)));
    whole.ok_or_else(|| {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "kelvin-out-of-range",
            "The colour temperature is out of range",
            format!("`kelvin` is {kelvin}, the range is {min} K to {max} K"),
            format!("give {min} to {max}"),
        )
    })
}

fn chromaticity(given: &Any) -> Result<Color, Problem> {
    let coordinate = |name: &str| given.get(name).and_then(Any::as_f64);
    let parsed = match (given, coordinate("x"), coordinate("y")) {
        (Any::String(text), ..) => color::parse(text),
        (Any::Object(map), Some(x), Some(y)) if map.len() == 2 => color::from_xy(x, y),
        _ => Err("`color` is none of a name, \"#rrggbb\" and {\"x\":0.31,\"y\":0.33}".to_owned()),
    };
    parsed.map_err(|detail| {
        let names: Vec<_> = color::names().collect();
        let fix = format!("give #rrggbb, x and y, or a name: {}", names.join(", "));
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "color", "Not a colour", detail, fix)
    })
}

/// What the device says it can do is the measure; where it says nothing, its owner decides.
fn check_capabilities(device: &ObjectView, change: &Change) -> Result<(), Problem> {
    let field = FieldName::new("capabilities").ok().and_then(|name| device.fields.get(&name));
    let Some(can @ Value::Map(_)) = field.map(|field| &field.value) else { return Ok(()) };
    let lacks = |name: &str| matches!(can.get(name), None | Some(Value::Null | Value::Bool(false)));
    let refuse = |what: &str, fix: &str| {
        let detail = format!("{} has no {what}", device.id.as_str());
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "not-capable",
            "The device cannot do that",
            detail,
            fix,
        )
    };
    let kind = can.get("kind").and_then(Value::as_text).unwrap_or("light");
    let only_power = Change { on: change.on, transition_ms: change.transition_ms, ..Change::default() };
    match kind {
        "light" if !change.press => {}
        "switch" if *change == only_power => return Ok(()),
        "button" if change.press && !lacks("press") => return Ok(()),
        "light" | "switch" => return Err(refuse("such ability", "a light or switch can be on or off")),
        "button" => {
            return Err(refuse("command but a press, if it takes that", "`hearth devices` shows what it is"));
        }
        _ => {
            return Err(refuse(
                "command: it only measures",
                "`hearth devices` shows which devices can be commanded",
            ));
        }
    }
    if change.brightness.is_some() && lacks("brightness") {
        return Err(refuse("brightness", "leave out `brightness`"));
    }
    match change.color {
        Some(Color::Xy(..)) if lacks("color") => Err(refuse("colours", "use `kelvin` or `brightness`")),
        Some(Color::Temperature(_)) if lacks("color_temperature") => {
            Err(refuse("colour temperature", "leave out `kelvin`"))
        }
        Some(Color::Temperature(k)) => {
            let bound = |name: &str| can.get("color_temperature").and_then(|t| t.get(name)?.as_int());
            let range = (bound("min_k").unwrap_or(ANY_KELVIN.0), bound("max_k").unwrap_or(ANY_KELVIN.1));
            kelvin(f64::from(k), range).map(|_| ())
        }
        _ => Ok(()),
    }
}

/// A command as readers see it.
pub(super) fn to_json(command: &Command) -> Any {
    let life = command.life.iter().map(|(state, at)| json!({ "state": state, "at": timestamp(*at) }));
    let mut shown = json!({
        "id": command.id,
        "device": command.device.as_str(),
        "state": command.state,
        "at": timestamp(command.at_ms),
        "deadline": timestamp(command.deadline_ms),
        "life": life.collect::<Vec<_>>(),
    });
    if let Any::Object(map) = &mut shown {
        let told = [("reason", &command.reason), ("by", &command.by)];
        let told = told.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?)));
        map.extend(told.map(|(name, text)| (name.to_owned(), Any::from(text.as_str()))));
    }
    shown
}
