//! Thermometers: the contract, what the kernel shows, and what is believed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::belief::{Belief, MOST_TRIES, Verdict};
use super::wire::{Rom, WireError, parse_temperature, parse_w1_slave};
use super::{Buses, REGISTRATION, TEMPERATURE};
use crate::board::Hardware;
use crate::board::tests::Folder;
use crate::contract;
use crate::model::Measurement;

/// As the kernel's driver prints it.
const GOLDEN: &str = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n";

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time() {
    let folder = Folder::new();
    folder.file("bus/w1/devices/28-0316a2794cff/w1_slave", GOLDEN);
    let settings = json!({ "root": folder.0 });
    contract::shutdown(&REGISTRATION, &settings, Duration::from_millis(50)).await.unwrap();
}

#[test]
fn a_sensor_is_told_from_a_bus_master_and_other_chips() {
    assert_eq!(Rom::parse("28-0316a2794cff").unwrap().model(), "DS18B20");
    assert_eq!(Rom::parse("10-000802824e58").unwrap().model(), "DS18S20");
    for other in [
        "w1_bus_master1",
        "01-000012345678",
        "28-0316A2794CFF",
        "28-0316a2794cf",
        "28-",
        "",
        "28_0316a2794cff",
        "2é-316a2794cff",
    ] {
        assert_eq!(Rom::parse(other), None, "{other}");
    }
}

#[test]
fn both_files_of_the_kernel_are_read() {
    assert_eq!(parse_w1_slave(GOLDEN), Ok(23.125));
    assert_eq!(parse_w1_slave(GOLDEN.trim_end()), Ok(23.125));
    assert_eq!(parse_w1_slave(&GOLDEN.replace("23125", "-1250")), Ok(-1.25));
    assert_eq!(parse_w1_slave(&GOLDEN.replace("YES", "NO")), Err(WireError::Checksum));
    let zeros = "00 00 00 00 00 00 00 00 00 : crc=00 YES\n00 00 00 00 00 00 00 00 00 t=0\n";
    assert_eq!(parse_w1_slave(zeros), Err(WireError::Shorted));
    assert_eq!(parse_temperature("23125\n"), Ok(23.125));
    for bad in ["", "YES", "t=1", ": crc=57 YES\n", &GOLDEN.replace("YES", ""), &GOLDEN.replace("t=", "")] {
        assert_eq!(parse_w1_slave(bad), Err(WireError::NoReading), "{bad:?}");
    }
    for bad in ["", "23.1", "NaN", "99999999999", "t=1"] {
        assert_eq!(parse_temperature(bad), Err(WireError::NoReading), "{bad:?}");
    }
}

/// What a poll makes of readings, and how many it took.
fn poll(last: Option<f64>, readings: &[Result<f64, String>]) -> (Verdict, usize) {
    let mut belief = Belief::new(Rom::parse("28-0316a2794cff").unwrap(), last);
    for (index, reading) in readings.iter().enumerate() {
        match belief.take(reading.clone()) {
            Verdict::Again => {}
            verdict => return (verdict, index + 1),
        }
    }
    (Verdict::Again, readings.len())
}

#[test]
fn a_reading_near_the_last_is_believed_and_a_jump_only_when_it_is_confirmed() {
    assert_eq!(poll(Some(21.0), &[Ok(22.5)]), (Verdict::Believed(22.5), 1));
    assert_eq!(poll(None, &[Ok(21.0), Ok(21.1)]), (Verdict::Believed(21.1), 2), "after the start");
    assert_eq!(poll(Some(21.0), &[Ok(60.0), Ok(60.4)]), (Verdict::Believed(60.4), 2));
    assert_eq!(poll(Some(21.0), &[Ok(60.0), Ok(21.2)]), (Verdict::Believed(21.2), 2), "it was noise");
    let jumping = poll(None, &[Ok(10.0), Ok(20.0), Ok(30.0), Ok(40.0)]);
    assert!(matches!(&jumping, (Verdict::Unknown(why), 4) if why.contains("jumps")), "{jumping:?}");
}

#[test]
fn the_value_after_power_on_is_believed_only_next_to_another() {
    let stuck = poll(Some(21.0), &[Ok(85.0), Ok(85.0), Ok(85.0), Ok(85.0)]);
    assert!(matches!(&stuck, (Verdict::Unknown(why), 4) if why.contains("power-on")), "{stuck:?}");
    assert!(matches!(poll(None, &[Ok(85.0), Ok(85.0), Ok(85.0), Ok(85.0)]), (Verdict::Unknown(_), 4)));
    assert_eq!(poll(Some(84.2), &[Ok(85.0)]), (Verdict::Believed(85.0), 1), "a boiler");
    assert_eq!(poll(None, &[Ok(85.0), Ok(21.0), Ok(21.0)]), (Verdict::Believed(21.0), 3));
    assert_eq!(poll(None, &[Ok(85.0), Ok(85.062), Ok(85.0), Ok(85.062)]), (Verdict::Believed(85.062), 4));
}

#[test]
fn what_cannot_be_is_unknown_after_some_tries() {
    for (wrong, why) in [
        (Ok(-127.0), "able to measure"),
        (Ok(127.937), "able to measure"),
        (Err("the checksum is wrong".to_owned()), "checksum"),
    ] {
        let tries = usize::try_from(MOST_TRIES).unwrap();
        let (verdict, took) = poll(Some(21.0), &vec![wrong.clone(); tries]);
        assert!(matches!(&verdict, Verdict::Unknown(told) if told.contains(why)), "{verdict:?}");
        assert_eq!(took, tries);
        assert_eq!(poll(Some(21.0), &[wrong, Ok(21.1)]), (Verdict::Believed(21.1), 2));
    }
}

#[test]
fn a_thermometer_is_known_by_its_own_number_on_every_board() {
    let folder = Folder::new();
    folder.file("bus/w1/devices/28-0316a2794cff/w1_slave", GOLDEN);
    folder.file("bus/w1/devices/10-000802824e58/temperature", "19500\n");
    folder.file("bus/w1/devices/w1_bus_master1/w1_master_slaves", "28-0316a2794cff\n");
    let buses = Buses { folder: folder.0.join("bus/w1/devices") };
    let listing = buses.list(&Default::default()).unwrap();
    let ids: Vec<_> = listing.found.iter().map(|found| found.description.id.as_str().to_owned()).collect();
    assert_eq!(ids, ["onewire-10-000802824e58", "onewire-28-0316a2794cff"]);
    for (found, celsius) in listing.found.iter().zip([19.5, 23.125]) {
        let sample = buses.read(&found.place, None).unwrap();
        assert_eq!(sample.values[TEMPERATURE], Measurement::Number(celsius));
    }
}

#[test]
fn what_is_no_reading_is_told_with_its_file_what_belongs_there_and_the_way_out() {
    let folder = Folder::new();
    let file = "bus/w1/devices/28-0316a2794cff/w1_slave";
    folder.file(file, "");
    let buses = Buses { folder: folder.0.join("bus/w1/devices") };
    let place = buses.list(&Default::default()).unwrap().found.remove(0).place;
    let told = |text: &str| {
        folder.file(file, text);
        match &buses.read(&place, None).unwrap().values[TEMPERATURE] {
            Measurement::Unknown(why) => why.clone(),
            other => panic!("{other:?}"),
        }
    };
    let path = folder.0.join(file).display().to_string();
    for (text, found) in [("", "\"\""), ("\n", "\"\\n\""), ("72 01 4b", "\"72 01 4b\"")] {
        let wanted = format!(
            "{path} holds {found}, which is not nine bytes, whether their checksum is right, and the temperature: \
             the sensor did not answer in full, so look at its wires, their pull-up and its supply"
        );
        assert_eq!(told(text), wanted);
    }
    let wrong = told(&GOLDEN.replace("YES", "NO"));
    assert!(wrong.starts_with(&format!("{path}: the checksum of what the sensor sent is wrong")), "{wrong}");
    std::fs::remove_file(folder.0.join(file)).unwrap();
    folder.file("bus/w1/devices/28-0316a2794cff/temperature", "warm\n");
    let Measurement::Unknown(why) = buses.read(&place, None).unwrap().values[TEMPERATURE].clone() else {
        panic!()
    };
    assert!(why.contains("temperature holds \"warm\", which is not a temperature in thousandths"), "{why}");
}

#[test]
fn sensors_of_one_bus_share_a_lane_and_those_of_two_do_not() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.0.join("bus/w1/devices")).unwrap();
    for (bus, rom) in [
        ("w1_bus_master1", "28-000000000001"),
        ("w1_bus_master1", "28-000000000002"),
        ("w1_bus_master2", "28-000000000003"),
    ] {
        folder.file(&format!("devices/{bus}/{rom}/w1_slave"), GOLDEN);
        let target = folder.0.join("devices").join(bus).join(rom);
        std::os::unix::fs::symlink(target, folder.0.join("bus/w1/devices").join(rom)).unwrap();
    }
    let listing = Buses { folder: folder.0.join("bus/w1/devices") }.list(&Default::default()).unwrap();
    let lanes: Vec<_> = listing.found.iter().map(|found| found.lane.as_str()).collect();
    assert_eq!(lanes, ["w1_bus_master1", "w1_bus_master1", "w1_bus_master2"]);
}

proptest! {
    #[test]
    fn noise_is_read_without_a_panic(text in "(?s).{0,200}", milli: i32) {
        let _ = (parse_w1_slave(&text), parse_temperature(&text), Rom::parse(&text));
        let slave = format!("72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 t={milli}");
        prop_assert_eq!(parse_w1_slave(&slave), Ok(f64::from(milli) / 1_000.0));
    }

    #[test]
    fn a_poll_ends_after_so_many_tries(last in prop::option::of(-60.0..130.0), readings in prop::collection::vec(-130.0..130.0, 4)) {
        let readings: Vec<_> = readings.into_iter().map(Ok).collect();
        let (verdict, _) = poll(last, &readings);
        match verdict {
            Verdict::Believed(celsius) => prop_assert!((-55.0..=125.0).contains(&celsius)),
            Verdict::Unknown(why) => prop_assert!(!why.is_empty()),
            Verdict::Again => prop_assert!(false, "it never ends"),
        }
    }
}
