//! Sensors of the kernel's industrial IO subsystem: air, light, gas, voltages of a BME280, BH1750, SCD41, ADS1115…
//!
//! Source: Documentation/ABI/testing/sysfs-bus-iio of the Linux kernel.

#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use crate::adapter::{Adapter, AdapterError, Context, Descriptor, Registration, Scope, SettingsError};
use crate::board::{self, Applied, Attribute, Fault, Found, Hardware, Listing, Polled, Sample, entries};
use crate::model::sensor::MOST_SENSORS;
use crate::model::{Capabilities, Change, Description, DeviceId, Measurement, Sensors};

use self::wire::Channel;

/// The id of the adapter, and the prefix of its device ids.
const ID: &str = "iio";
/// How often a channel is read before it counts as unreadable: a DHT22 fails once in a while.
const TRIES: u32 = 3;

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "Sensors of the board",
        scope: Scope::Board,
        mdns: &[],
        shows_home: false,
        settings_schema: schema,
    },
    build,
};

fn schema() -> serde_json::Value {
    Polled::schema("Small chips warm up when they are read often.")
}

fn build(settings: &serde_json::Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Polled::parse(&REGISTRATION.descriptor, settings)?;
    Ok(Box::new(Iio { config }))
}

struct Iio {
    config: Polled,
}

impl Adapter for Iio {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        let Polled { root, poll } = self.config;
        let chips = Chips { folder: root.join("bus/iio/devices"), board: ctx.board.clone() };
        Box::pin(board::run(chips, poll, ctx, board::no_events()))
    }
}

/// All chips of the board.
struct Chips {
    folder: PathBuf,
    board: String,
}

/// One chip.
#[derive(Debug, Clone)]
struct Chip {
    folder: PathBuf,
    /// What it measures, by the key of the sensor.
    channels: BTreeMap<String, Channel>,
}

impl Hardware for Chips {
    type Place = Chip;
    const ADAPTER: &'static str = ID;

    fn list(&self, known: &BTreeMap<DeviceId, Chip>) -> io::Result<Listing<Chip>> {
        let mut listing = Listing::default();
        for device in entries(&self.folder, |name| name.starts_with("iio:device"))? {
            match self.found(&device) {
                Ok(Some(found)) => listing.found.push(found),
                Ok(None) => {} // an accelerometer, a converter that only puts out
                Err(why) => {
                    let here = self.folder.join(&device);
                    listing.doubt(known, format!("{device}: {why}"), |chip| chip.folder == here);
                }
            }
        }
        Ok(listing)
    }

    fn read(&self, chip: &Chip, _last: Option<&Sample>) -> Result<Sample, String> {
        let mut values = BTreeMap::new();
        let mut failure = None;
        for (key, channel) in &chip.channels {
            let measured = match chip.measure(channel) {
                Ok(number) => Measurement::Number(number),
                Err(why) => {
                    failure.get_or_insert_with(|| why.clone());
                    Measurement::Unknown(why)
                }
            };
            values.insert(key.clone(), measured);
        }
        let answers = values.values().any(|value| matches!(value, Measurement::Number(_)));
        // A chip of which no channel can be read is not there.
        failure.filter(|_| !answers).map_or(Ok(Sample { state: None, values }), Err)
    }

    fn apply(&self, _: &Chip, _: &Change, _: Option<&Sample>) -> Result<Applied, Fault> {
        Err(Fault::Refused("a sensor takes no commands".to_owned()))
    }
}

impl Chips {
    fn found(&self, device: &str) -> io::Result<Option<Found<Chip>>> {
        let folder = self.folder.join(device);
        let names = entries(&folder, |name| name.starts_with("in_"))?;
        let mut channels = BTreeMap::new();
        for channel in Channel::all(&names).into_iter().take(MOST_SENSORS) {
            channels.insert(channel.key(), channel);
        }
        if channels.is_empty() {
            return Ok(None);
        }
        let part = Attribute::of(&folder, "name").text().map_err(io::Error::other)?;
        // The number of the device depends on the order in which drivers are loaded; where it is wired does not.
        let wired = wired_to(&folder).unwrap_or_else(|| device.to_owned());
        let id = board::board_id(ID, &self.board, &format!("{wired}-{part}")).map_err(io::Error::other)?;
        let sensors: Sensors =
            channels.iter().map(|(key, channel)| (key.clone(), channel.description())).collect();
        let description = Description {
            id,
            adapter: ID.to_owned(),
            name: Attribute::of(&folder, "label").optional().unwrap_or_default(),
            manufacturer: String::new(),
            model: part,
            firmware: None,
            address: Some(format!("{} ({wired})", folder.display())),
            capabilities: Capabilities::Sensor,
            sensors,
            note: None,
        };
        Ok(Some(Found { description, lane: device.to_owned(), place: Chip { folder, channels } }))
    }
}

impl Chip {
    /// Reads a channel, in the unit of its description.
    fn measure(&self, channel: &Channel) -> Result<f64, String> {
        let mut tries = 0;
        let raw = loop {
            tries += 1;
            match Attribute::of(&self.folder, &channel.file).number() {
                Ok(raw) => break raw,
                Err(error) if error.is_missing() || error.is_strange() || tries >= TRIES => {
                    return Err(error.to_string());
                }
                Err(_) => {}
            }
        };
        if channel.is_processed {
            return channel.in_unit(raw);
        }
        let offset = self.first_of(&channel.shared("offset"))?.unwrap_or(0.0);
        let scale = self.first_of(&channel.shared("scale"))?.unwrap_or(1.0);
        channel.in_unit((raw + offset) * scale)
    }

    /// The number of the first of these files that is there.
    fn first_of(&self, names: &[String]) -> Result<Option<f64>, String> {
        for name in names {
            match Attribute::of(&self.folder, name).number() {
                Ok(number) => return Ok(Some(number)),
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(None)
    }
}

/// What a chip is wired to, such as `1-0076` for address 0x76 of the second I2C bus: the folder that its own folder, to which
/// the one in the list is a link, is in.
fn wired_to(folder: &Path) -> Option<String> {
    let real = folder.canonicalize().ok()?;
    let parent = real.parent().filter(|parent| Some(*parent) != listed_in(folder).as_deref())?;
    Some(parent.file_name()?.to_str()?.to_owned())
}

fn listed_in(folder: &Path) -> Option<PathBuf> {
    folder.parent()?.canonicalize().ok()
}
