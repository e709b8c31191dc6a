//! LEDs that the kernel drives: the LED class, with brightness by PWM where the hardware has it.
//!
//! Sources: Documentation/leds/leds-class.rst, Documentation/ABI/testing/sysfs-class-led and
//! Documentation/ABI/testing/sysfs-class-led-multicolor of the Linux kernel.
//!
//! Every LED is a light, also one that knows only on and off. While it is off the kernel forgets how bright it was; what
//! this run saw last counts, else full brightness. Nothing is restored when the adapter stops: a LED stays as it is.

mod config;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use crate::adapter::{Adapter, AdapterError, Context, Descriptor, Registration, Scope, SettingsError};
use crate::board::{
    self, Applied, Attribute, AttributeError, Fault, Found, Hardware, Listing, Sample, entries,
};
use crate::model::{
    Capabilities, Change, ColorMode, Description, DeviceId, Gamut, LightCapabilities, LightState, Sensors,
    State,
};

use self::config::{Config, Which};
use self::wire::{Channels, Shown, Target};

/// The id of the adapter.
const ID: &str = "sysfs_led";

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "LEDs of the board",
        scope: Scope::Board,
        mdns: &[],
        shows_home: false,
        settings_schema: config::schema,
    },
    build,
};

fn build(settings: &serde_json::Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Config::parse(&REGISTRATION.descriptor, settings)?;
    Ok(Box::new(SysfsLed { config }))
}

struct SysfsLed {
    config: Config,
}

impl Adapter for SysfsLed {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(async move {
            let Config { root, leds, poll } = self.config;
            if leds == Which::Named(Vec::new()) {
                let what =
                    "set leds to the names of LEDs in /sys/class/leds, such as [\"ACT\"], or to [\"*\"]";
                return Err(AdapterError::Unconfigured { adapter: ID, what: what.to_owned() });
            }
            let leds = Leds { folder: root.join("class/leds"), which: leds, board: ctx.board.clone() };
            board::run(leds, poll, ctx, board::no_events()).await
        })
    }
}

/// The LEDs of a folder.
struct Leds {
    folder: PathBuf,
    which: Which,
    board: String,
}

/// One LED.
#[derive(Debug, Clone)]
struct Led {
    folder: PathBuf,
    /// Its brightest.
    most: u32,
    /// What it is mixed of, if it has several colours.
    channels: Option<Channels>,
}

impl Hardware for Leds {
    type Place = Led;
    const ADAPTER: &'static str = ID;

    fn list(&self, known: &BTreeMap<DeviceId, Led>) -> io::Result<Listing<Led>> {
        let mut listing = Listing::default();
        let there = entries(&self.folder, |_| true)?;
        let names = match &self.which {
            Which::Free => &there,
            Which::Named(names) => names,
        };
        for name in names {
            match self.found(name) {
                Ok(Some(found)) => listing.found.push(found),
                Ok(None) => {} // the kernel's own use of it goes first
                Err(why) => {
                    let here = self.folder.join(name);
                    let may_be_there = !matches!(here.try_exists(), Ok(false));
                    let why = format!("LED {name}: {why}");
                    listing.doubt(known, why, |led| may_be_there && led.folder == here);
                }
            }
        }
        Ok(listing)
    }

    fn read(&self, led: &Led, last: Option<&Sample>) -> Result<Sample, String> {
        let shown = led.shows().map_err(|error| error.to_string())?;
        Ok(Sample::state(State::Light(led.light(&shown, remembered(last)))))
    }

    fn apply(&self, led: &Led, change: &Change, last: Option<&Sample>) -> Result<Applied, Fault> {
        let Change::Light(change) = change else {
            return Err(Fault::Refused("a LED takes changes of a light".to_owned()));
        };
        let before = led.shows().map_err(|error| failed(&error))?;
        let now = led.light(&before, remembered(last));
        let target = Target::of(change, &now, &before, led.most, led.channels.as_ref());
        led.write(&before, &target.shown).map_err(|error| failed(&error))?;
        let after = led.shows().map_err(|error| failed(&error))?;
        let sample = Sample::state(State::Light(led.light(&after, Some(&target.light))));
        Ok(Applied { sample, follows: after == target.shown })
    }
}

impl Leds {
    fn found(&self, name: &str) -> Result<Option<Found<Led>>, AttributeError> {
        let folder = self.folder.join(name);
        let trigger = active_trigger(&folder)?;
        if self.which == Which::Free && trigger.is_some() {
            return Ok(None);
        }
        let most = Attribute::of(&folder, "max_brightness");
        let most = u32::try_from(most.integer()?).ok().filter(|most| *most > 0);
        let most = most.ok_or_else(|| {
            Attribute::of(&folder, "max_brightness").strange("0", "the brightness of a LED at its brightest")
        })?;
        let channels = match Attribute::of(&folder, "multi_index").text() {
            Ok(index) => Channels::parse(&index),
            Err(error) if error.is_missing() => None, // it has one colour
            Err(error) => return Err(error),
        };
        let Ok(id) = board::board_id(ID, &self.board, name) else { return Ok(None) };
        let capabilities = LightCapabilities {
            brightness: most > 1,
            color: channels.as_ref().filter(|channels| channels.have_colors()).map(|_| Gamut::SRGB),
            ..LightCapabilities::default()
        };
        let note = trigger
            .map(|trigger| format!("the kernel's trigger {trigger} drives it until a command for it comes"));
        let description = Description {
            id,
            adapter: ID.to_owned(),
            name: name.to_owned(),
            manufacturer: String::new(),
            model: "LED of the board".to_owned(),
            firmware: None,
            address: Some(folder.display().to_string()),
            capabilities: Capabilities::Light(capabilities),
            sensors: Sensors::new(),
            note,
        };
        Ok(Some(Found { description, lane: format!("LED {name}"), place: Led { folder, most, channels } }))
    }
}

impl Led {
    /// What it shows, as the kernel says it.
    fn shows(&self) -> Result<Shown, AttributeError> {
        let brightness = Attribute::of(&self.folder, "brightness");
        let level = brightness.integer()?;
        let fits = u32::try_from(level).ok().filter(|level| *level <= self.most);
        let level =
            fits.ok_or_else(|| brightness.strange(&level.to_string(), "from 0 to its max_brightness"))?;
        let Some(channels) = &self.channels else { return Ok(Shown { level, intensities: Vec::new() }) };
        let attribute = Attribute::of(&self.folder, "multi_intensity");
        let text = attribute.text()?;
        let intensities = channels.read(&text);
        let strange = || attribute.strange(&text, "a number for each colour of multi_index");
        Ok(Shown { level, intensities: intensities.ok_or_else(strange)? })
    }

    /// That, as a light; what the LED does not tell while it is off is as remembered.
    fn light(&self, shown: &Shown, remembered: Option<&LightState>) -> LightState {
        let level = shown.light(self.most);
        let brightness = match level {
            0 => remembered.map_or(u16::MAX, |light| light.brightness),
            level => wire::brightness_of(level, self.most),
        };
        let channels = self.channels.as_ref();
        let color = channels.and_then(|channels| channels.color_of(&shown.intensities)).map(ColorMode::Color);
        LightState::plain(level > 0, brightness, color.unwrap_or(ColorMode::None))
    }

    fn write(&self, before: &Shown, target: &Shown) -> Result<(), AttributeError> {
        // Else the trigger would take the LED back at its next turn.
        if active_trigger(&self.folder)?.is_some() {
            Attribute::of(&self.folder, "trigger").write("none")?;
        }
        if target.intensities != before.intensities {
            let intensities: Vec<String> = target.intensities.iter().map(u32::to_string).collect();
            Attribute::of(&self.folder, "multi_intensity").write(&intensities.join(" "))?;
        }
        Attribute::of(&self.folder, "brightness").write(&target.level.to_string())
    }
}

/// How the light was the last time.
fn remembered(last: Option<&Sample>) -> Option<&LightState> {
    match last?.state.as_ref()? {
        State::Light(light) => Some(light),
        _ => None,
    }
}

/// What drives the LED by itself, if something does. A LED without triggers has no such file.
fn active_trigger(folder: &Path) -> Result<Option<String>, AttributeError> {
    match Attribute::of(folder, "trigger").list() {
        Ok(text) => Ok(wire::active_trigger(&text).map(str::to_owned)),
        Err(error) if error.is_missing() && folder.is_dir() => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(error: &AttributeError) -> Fault {
    if error.is_denied() {
        let way_out = "leds.conf in /usr/share/doc/hearth/hearth.service.d lets Hearth's service write LEDs";
        Fault::Refused(format!("{error}: {way_out}"))
    } else {
        Fault::Failed(error.to_string())
    }
}
