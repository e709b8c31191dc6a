//! Thermometers on a 1-Wire bus: DS18B20 and its relatives, by the kernel's driver `w1_therm`.
//!
//! Sources: Documentation/w1/slaves/w1_therm.rst and Documentation/ABI/testing/sysfs-driver-w1_therm of the Linux kernel;
//! the data sheet of the DS18B20 for its range and the value that it shows after power-on.

mod belief;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
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
    self, Applied, Attribute, AttributeError, Fault, Found, Hardware, Listing, Polled, Sample, entries,
};
use crate::model::{Capabilities, Change, Description, DeviceId, Measurement, SensorDescription, Sensors};

use self::belief::{Belief, Verdict};
use self::wire::{Rom, WireError};

/// The id of the adapter, and the prefix of its device ids.
const ID: &str = "onewire";
/// What to do where the kernel's driver got no answer that it could print.
const WAY_OUT: &str = "the sensor did not answer in full, so look at its wires, their pull-up and its supply";
/// The one sensor of a thermometer.
const TEMPERATURE: &str = "temperature";

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "1-Wire thermometers",
        scope: Scope::Board,
        mdns: &[],
        shows_home: false,
        settings_schema: schema,
    },
    build,
};

fn schema() -> serde_json::Value {
    Polled::schema("One takes up to 0.75 seconds, and those of one bus are read one after the other.")
}

fn build(settings: &serde_json::Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Polled::parse(&REGISTRATION.descriptor, settings)?;
    Ok(Box::new(OneWire { config }))
}

struct OneWire {
    config: Polled,
}

impl Adapter for OneWire {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        let Polled { root, poll } = self.config;
        let buses = Buses { folder: root.join("bus/w1/devices") };
        Box::pin(board::run(buses, poll, ctx, board::no_events()))
    }
}

/// How a file of a thermometer is read.
type Parse = fn(&str) -> Result<f64, WireError>;

/// All 1-Wire buses of the board.
struct Buses {
    folder: PathBuf,
}

/// One thermometer.
#[derive(Debug, Clone)]
struct Thermometer {
    folder: PathBuf,
    rom: Rom,
}

impl Hardware for Buses {
    type Place = Thermometer;
    const ADAPTER: &'static str = ID;

    fn list(&self, _known: &BTreeMap<DeviceId, Thermometer>) -> io::Result<Listing<Thermometer>> {
        let names = entries(&self.folder, |name| Rom::parse(name).is_some())?;
        let found = names.iter().filter_map(|name| self.found(name)).collect();
        Ok(Listing { found, ..Listing::default() })
    }

    fn read(&self, thermometer: &Thermometer, last: Option<&Sample>) -> Result<Sample, String> {
        let last = match last.and_then(|last| last.values.get(TEMPERATURE)) {
            Some(Measurement::Number(celsius)) => Some(*celsius),
            _ => None,
        };
        let mut belief = Belief::new(thermometer.rom, last);
        let measured = loop {
            let reading = thermometer.convert()?;
            match belief.take(reading) {
                Verdict::Again => {}
                Verdict::Believed(celsius) => break Measurement::Number(celsius),
                Verdict::Unknown(why) => break Measurement::Unknown(why),
            }
        };
        Ok(Sample { state: None, values: BTreeMap::from([(TEMPERATURE.to_owned(), measured)]) })
    }

    fn apply(&self, _: &Thermometer, _: &Change, _: Option<&Sample>) -> Result<Applied, Fault> {
        Err(Fault::Refused("a thermometer takes no commands".to_owned()))
    }
}

impl Buses {
    fn found(&self, name: &str) -> Option<Found<Thermometer>> {
        let rom = Rom::parse(name)?;
        let folder = self.folder.join(name);
        let sensor = SensorDescription::numeric("Temperature", Some("temperature"), "°C", 1);
        let description = Description {
            id: DeviceId::new(format!("{ID}-{name}")).ok()?,
            adapter: ID.to_owned(),
            name: String::new(),
            manufacturer: "Maxim".to_owned(),
            model: rom.model().to_owned(),
            firmware: None,
            address: Some(folder.display().to_string()),
            capabilities: Capabilities::Sensor,
            sensors: Sensors::from([(TEMPERATURE.to_owned(), sensor)]),
            note: None,
        };
        Some(Found { description, lane: bus_of(&folder), place: Thermometer { folder, rom } })
    }
}

impl Thermometer {
    /// Has the sensor convert, which takes 750 ms, and reads it: by the file that tells the checksum, if it is there. What
    /// is there and cannot be believed may be right the next time.
    fn convert(&self) -> Result<Result<f64, String>, String> {
        let checked = Attribute::of(&self.folder, "w1_slave");
        match checked.text() {
            Err(error) if error.is_missing() => {
                let simple = Attribute::of(&self.folder, "temperature");
                reading(&simple, simple.text(), wire::parse_temperature, wire::TEMPERATURE)
            }
            text => reading(&checked, text, wire::parse_w1_slave, wire::W1_SLAVE),
        }
    }
}

/// What a file that was read says; `wanted` is what belongs there.
fn reading(
    file: &Attribute,
    text: Result<String, AttributeError>,
    parse: Parse,
    wanted: &'static str,
) -> Result<Result<f64, String>, String> {
    let text = match text {
        Ok(text) => text,
        Err(AttributeError::Strange { found, .. }) => found,
        Err(error) if error.is_strange() => return Ok(Err(error.to_string())),
        Err(error) => return Err(error.to_string()),
    };
    Ok(parse(&text).map_err(|error| match error {
        WireError::NoReading => format!("{}: {WAY_OUT}", file.strange(&text, wanted)),
        told => format!("{}: {told}", file.path().display()),
    }))
}

/// The bus of a thermometer: its folder is a link into the folder of the bus master.
fn bus_of(folder: &Path) -> String {
    let real = folder.canonicalize().ok();
    let master = real.as_deref().and_then(Path::parent).and_then(Path::file_name);
    let name = master.map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| name.starts_with("w1_bus_master")).unwrap_or_else(|| "the 1-Wire bus".to_owned())
}
