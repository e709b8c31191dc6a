//! Which readings of a thermometer are believed. Pure.
//!
//! - A reading near the last one that was believed is believed.
//! - After the start, and after a jump of more than 5 K, the sensor is read again, and believed when it says nearly the
//!   same: what disturbs a bus for an instant does not do so twice alike.
//! - 85 °C is what a sensor shows that was just powered on and has not measured: it is believed only next to a believed
//!   reading. One that really rises to 85 °C shows 84.9 °C or 85.1 °C at some poll.
//! - What the sensor is not able to measure, such as 127.9 °C for too little power or the -127 °C of other software, and
//!   what has a wrong checksum, is read again; after [`MOST_TRIES`] readings the temperature is unknown.

use super::wire::Rom;

/// Readings in a row before the temperature is unknown; each takes up to 750 ms.
pub(super) const MOST_TRIES: u32 = 4;
/// The largest change that is believed at once, in K.
const JUMP: f64 = 5.0;
/// How alike two readings are of which the second confirms the first, in K.
const ALIKE: f64 = 1.0;
/// What a sensor shows before it has measured, in °C.
const POWER_ON: f64 = 85.0;

/// What a reading leads to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Read again.
    Again,
    /// It is that warm, in °C.
    Believed(f64),
    /// Nobody knows, and why.
    Unknown(String),
}

/// The readings of one poll.
#[derive(Debug)]
pub(super) struct Belief {
    rom: Rom,
    /// The last temperature that was believed.
    last: Option<f64>,
    /// The last one of this poll that is possible.
    before: Option<f64>,
    tries: u32,
}

impl Belief {
    /// A poll, after one that yielded `last` if it was believed.
    pub(super) fn new(rom: Rom, last: Option<f64>) -> Self {
        Self { rom, last, before: None, tries: 0 }
    }

    /// Takes a reading, or why it is none; after at most [`MOST_TRIES`] it knows.
    pub(super) fn take(&mut self, reading: Result<f64, String>) -> Verdict {
        self.tries += 1;
        let why = match reading {
            Ok(celsius) => match self.doubt(celsius) {
                None => return Verdict::Believed(celsius),
                Some(why) => why,
            },
            Err(why) => why,
        };
        if self.tries < MOST_TRIES { Verdict::Again } else { Verdict::Unknown(why) }
    }

    /// Why a temperature is not believed, or not yet.
    fn doubt(&mut self, celsius: f64) -> Option<String> {
        let range = self.rom.range();
        if !range.contains(&celsius) {
            let (low, high) = (range.start(), range.end());
            return Some(format!("the sensor says {celsius} °C, and is able to measure {low} to {high} °C"));
        }
        let near =
            |other: Option<f64>, within: f64| other.is_some_and(|other| (other - celsius).abs() <= within);
        if near(self.last, JUMP) {
            return None;
        }
        if (celsius - POWER_ON).abs() < 0.01 {
            return Some("the sensor says 85 °C, as after power-on: look at its supply".to_owned());
        }
        if near(self.before, ALIKE) {
            return None;
        }
        self.before = Some(celsius);
        Some(format!("the sensor jumps: {celsius} °C is near to no other of its readings"))
    }
}
