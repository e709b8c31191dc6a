//! The device model: what every adapter reports and every other part of a home understands.
//!
//! Units are fixed here so that no adapter invents its own: brightness is a `u16` (0 to 65 535),
//! colour is CIE 1931 xy with each coordinate as a `u16` (65 535 is 1.0), colour temperature is in
//! kelvin, times are in milliseconds. [`color`] converts to what hardware speaks; nothing else does.

pub mod change;
pub mod color;
pub mod device;
pub mod light;
pub mod sensor;
pub mod weather;

pub use change::{ButtonCapabilities, Change, ChangeError, State};
pub use device::{
    Availability, Capabilities, CommandId, Description, DeviceId, IdError, MAX_DEVICE_ID, Source, Stage,
};
pub use light::{
    ColorMode, Gamut, KelvinRange, LightCapabilities, LightChange, LightState, MOST_RUNS, NO_EFFECT,
    Tolerance, Xy, Zone,
};
pub use sensor::{Measurement, SensorDescription, SensorKind, Sensors};
pub use weather::{Condition, Day, Forecast, Hour, WeatherCapabilities};
