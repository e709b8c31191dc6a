//! Industrial IO: the contract, the channels and their units.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::wire::Channel;
use super::{Chips, REGISTRATION};
use crate::board::Hardware;
use crate::board::tests::Folder;
use crate::contract;
use crate::model::{Measurement, SensorKind};

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time() {
    let folder = Folder::new();
    folder.file("bus/iio/devices/iio:device0/in_temp_input", "21000\n");
    let settings = json!({ "root": folder.0 });
    contract::shutdown(&REGISTRATION, &settings, Duration::from_millis(50)).await.unwrap();
}

fn keys(files: &[&str]) -> Vec<String> {
    let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
    Channel::all(&files).iter().map(Channel::key).collect()
}

#[test]
fn channels_are_told_from_the_other_files() {
    let bme280 = [
        "in_humidityrelative_input",
        "in_humidityrelative_oversampling_ratio",
        "in_pressure_input",
        "in_temp_input",
        "name",
        "uevent",
        "power",
    ];
    assert_eq!(keys(&bme280), ["humidity", "pressure", "temperature"]);
    let ads1115 =
        ["in_voltage0_raw", "in_voltage0_scale", "in_voltage0-voltage1_raw", "in_voltage_sampling_frequency"];
    assert_eq!(keys(&ads1115), ["voltage_0", "voltage_0_voltage1"]);
    assert_eq!(
        keys(&["in_temp_ambient_raw", "in_temp_object_raw"]),
        ["temperature_ambient", "temperature_object"]
    );
    assert_eq!(
        keys(&[
            "in_massconcentration_pm10_input",
            "in_massconcentration_pm1_input",
            "in_massconcentration_pm2p5_input"
        ]),
        ["pm1", "pm10", "pm2_5"]
    );
    let not = [
        "in_temp_peak_raw",
        "in_temp_mean_raw",
        "in_temperature_raw",
        "in_accel_x_raw",
        "out_voltage0_raw",
        "in_temp_raw_available",
        "in_temp",
        "in_",
        "in_temp-x_raw",
        "in_TEMP_raw",
    ];
    assert_eq!(keys(&not), Vec::<String>::new());
}

#[test]
fn what_the_kernel_processed_is_taken_before_what_it_did_not() {
    let files = ["in_temp_input", "in_temp_raw"].map(str::to_owned);
    for files in [files.clone().to_vec(), files.into_iter().rev().collect()] {
        let channels = Channel::all(&files);
        assert!(channels.len() == 1 && channels[0].is_processed);
    }
}

/// The files of a chip, and what they hold.
type Files<'a> = &'a [(&'a str, &'a str)];

/// What a chip with these files measures.
fn measured(files: Files<'_>) -> Result<BTreeMap<String, Measurement>, String> {
    let folder = Folder::new();
    folder.file("bus/iio/devices/iio:device0/name", "chip\n");
    for (name, text) in files {
        folder.file(&format!("bus/iio/devices/iio:device0/{name}"), text);
    }
    let chips = Chips { folder: folder.0.join("bus/iio/devices"), board: "0123456789abcdef".to_owned() };
    let listing = chips.list(&BTreeMap::new()).unwrap();
    chips.read(&listing.found[0].place, None).map(|sample| {
        let sensors = &listing.found[0].description.sensors;
        sample.values.into_iter().map(|(key, value)| (key.clone(), sensors[&key].fit(value))).collect()
    })
}

#[test]
fn values_become_the_units_of_the_model() {
    let cases: &[(Files<'_>, &str, f64)] = &[
        (&[("in_temp_input", "21370\n")], "temperature", 21.4),
        (&[("in_humidityrelative_input", "45123.046875\n")], "humidity", 45.1),
        (&[("in_pressure_input", "101.325000\n")], "pressure", 1_013.3),
        (&[("in_illuminance_raw", "120\n"), ("in_illuminance_scale", "0.833333\n")], "illuminance", 100.0),
        (&[("in_resistance_input", "12946")], "resistance", 12_946.0),
        (&[("in_voltage0_raw", "26400\n"), ("in_voltage0_scale", "0.125\n")], "voltage_0", 3.3),
        (&[("in_voltage0_raw", "100\n"), ("in_voltage_scale", "10\n")], "voltage_0", 1.0),
        // What differential channels share is not what the others share.
        (
            &[
                ("in_voltage0-voltage1_raw", "100\n"),
                ("in_voltage-voltage_scale", "20\n"),
                ("in_voltage_scale", "10\n"),
            ],
            "voltage_0_voltage1",
            2.0,
        ),
        // AHT20: (raw + offset) * scale
        (
            &[("in_temp_raw", "419430"), ("in_temp_offset", "-262144"), ("in_temp_scale", "0.190734863")],
            "temperature",
            30.0,
        ),
        (&[("in_concentration_co2_input", "0.0625")], "co2", 625.0),
        (&[("in_temp_input", "-40000")], "temperature", -40.0),
    ];
    for (files, key, wanted) in cases {
        assert_eq!(measured(files).unwrap()[*key], Measurement::Number(*wanted), "{files:?}");
    }
}

#[test]
fn a_channel_that_cannot_be_read_is_unknown_and_the_others_are_not() {
    let values = measured(&[("in_temp_input", "21000"), ("in_pressure_input", "NaN")]).unwrap();
    assert_eq!(values["temperature"], Measurement::Number(21.0));
    assert!(matches!(&values["pressure"], Measurement::Unknown(why) if why.contains("in_pressure_input")));
    let huge =
        measured(&[("in_temp_raw", "1e300"), ("in_temp_scale", "1e300"), ("in_pressure_input", "100")])
            .unwrap();
    assert!(matches!(&huge["temperature"], Measurement::Unknown(_)), "{huge:?}");
    let nothing = measured(&[("in_temp_raw", "1"), ("in_temp_scale", "one")]);
    assert!(nothing.unwrap_err().contains("in_temp_scale"));
}

#[test]
fn a_chip_is_known_by_where_it_is_wired() {
    let folder = Folder::new();
    folder.file("devices/i2c-1/1-0076/iio:device3/in_temp_input", "21000\n");
    folder.file("devices/i2c-1/1-0076/iio:device3/name", "bme280\n");
    folder.file("bus/iio/devices/iio:device0/in_accel_x_raw", "1\n");
    folder.file("bus/iio/devices/trigger0/name", "timer\n");
    let link = folder.0.join("bus/iio/devices/iio:device3");
    std::os::unix::fs::symlink(folder.0.join("devices/i2c-1/1-0076/iio:device3"), link).unwrap();
    let chips = Chips { folder: folder.0.join("bus/iio/devices"), board: "0123456789abcdef".to_owned() };
    let listing = chips.list(&BTreeMap::new()).unwrap();
    assert_eq!(listing.found.len(), 1);
    let found = &listing.found[0].description;
    assert_eq!(found.id.as_str(), "iio-0123456789abcdef-1-0076-bme280");
    assert_eq!(found.model, "bme280");
    let SensorKind::Numeric { unit, .. } = &found.sensors["temperature"].kind else { panic!("no number") };
    assert_eq!(unit, "°C");
}

#[test]
fn a_chip_whose_name_cannot_be_read_for_once_stays() {
    let folder = Folder::new();
    folder.file("bus/iio/devices/iio:device0/in_temp_input", "21000\n");
    folder.file("bus/iio/devices/iio:device0/name", "bme280\n");
    let chips = Chips { folder: folder.0.join("bus/iio/devices"), board: "0123456789abcdef".to_owned() };
    let found = chips.list(&BTreeMap::new()).unwrap().found.remove(0);
    let known = BTreeMap::from([(found.description.id.clone(), found.place)]);
    folder.file("bus/iio/devices/iio:device0/name", "\n");
    let listing = chips.list(&known).unwrap();
    assert!(listing.found.is_empty() && listing.unsure.contains(&found.description.id), "{listing:?}");
    assert!(listing.remarks[0].contains("name holds"), "{:?}", listing.remarks);
    std::fs::remove_dir_all(folder.0.join("bus/iio/devices/iio:device0")).unwrap();
    assert!(chips.list(&known).unwrap().unsure.is_empty(), "it was pulled");
}

proptest! {
    #[test]
    fn any_name_of_a_file_is_read_without_a_panic(name in "(in_)?(temp|voltage|pressure)?.{0,60}(_raw|_input)?") {
        for channel in Channel::all(&[name]) {
            prop_assert!(crate::model::sensor::is_sensor_key(&channel.key()), "{}", channel.key());
        }
    }
}
