//! LEDs: the contract, the settings, and what their files mean.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::ErrorKind;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::config::{Config, Which};
use super::wire::{Channels, Shown, Target, active_trigger, brightness_of, level_of};
use super::{Leds, REGISTRATION};
use crate::AdapterError;
use crate::adapter::Context;
use crate::board::tests::Folder;
use crate::board::{AttributeError, Fault, Hardware};
use crate::contract;
use crate::model::{Capabilities, Change, ColorMode, Gamut, LightChange, LightState, State, color};

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time() {
    let folder = Folder::new();
    folder.file("class/leds/a/max_brightness", "255\n");
    folder.file("class/leds/a/brightness", "0\n");
    let settings = json!({ "root": folder.0, "leds": ["*"] });
    contract::shutdown(&REGISTRATION, &settings, Duration::from_millis(50)).await.unwrap();
}

#[tokio::test]
async fn without_leds_it_says_what_to_set() {
    let adapter = (REGISTRATION.build)(&json!({})).unwrap();
    let ended = adapter.run(Context::channel(1, 1).0).await;
    assert!(matches!(ended, Err(AdapterError::Unconfigured { what, .. }) if what.contains("leds")));
}

#[test]
fn settings_name_the_key_the_value_and_the_rule() {
    let parse = |value| Config::parse(&REGISTRATION.descriptor, &value);
    for bad in ["", "a/b", "..", "\0"] {
        let refused = parse(json!({ "leds": [bad] })).unwrap_err().to_string();
        assert!(refused.contains("\"leds\"") && refused.contains("/sys/class/leds"), "{refused}");
    }
    assert!(parse(json!({ "root": "sys" })).unwrap_err().to_string().contains("\"root\""));
    assert_eq!(
        parse(json!({ "leds": ["b", "a", "b"] })).unwrap().leds,
        Which::Named(vec!["a".into(), "b".into()])
    );
    assert_eq!(parse(json!({ "leds": ["a", "*"] })).unwrap().leds, Which::Free);
}

#[test]
fn a_trigger_is_the_one_in_brackets() {
    assert_eq!(active_trigger("none rc-feedback kbd-capslock [mmc0] timer heartbeat"), Some("mmc0"));
    assert_eq!(active_trigger("[none] rc-feedback mmc0"), None);
    assert_eq!(active_trigger(""), None);
}

#[test]
fn levels_come_back_as_they_were_and_light_is_never_dark() {
    for most in [1, 3, 15, 100, 255, 4_095, 65_535, u32::MAX] {
        for level in [1, most / 2, most].into_iter().filter(|level| *level > 0) {
            let back = level_of(brightness_of(level, most), most);
            let step = most / 65_535 + 1;
            assert!(back.abs_diff(level) <= step, "{level} of {most} came back as {back}");
        }
        assert_eq!(level_of(0, most), 1);
        assert_eq!(level_of(u16::MAX, most), most);
    }
}

#[test]
fn channels_are_found_in_any_order() {
    let channels = Channels::parse("green white red blue").unwrap();
    assert!(channels.have_colors());
    assert_eq!(channels.read("1 2 3 4"), Some(vec![1, 2, 3, 4]));
    assert_eq!(channels.color_of(&[0, 9, 7, 0]), channels.color_of(&[0, 0, 255, 0]), "only the ratio counts");
    for wrong in ["1 2 3", "1 2 x 4", "1 2 3 4 5", "1 2 3 -4", ""] {
        assert_eq!(channels.read(wrong), None, "{wrong:?}");
    }
    assert!(!Channels::parse("amber white").unwrap().have_colors());
    assert_eq!(Channels::parse(&"red ".repeat(17)), None);
    assert_eq!(Channels::parse(" "), None);
}

/// What a change writes to a LED with these channels that shows this.
fn told(change: LightChange, level: u32, intensities: &[u32], most: u32) -> Shown {
    let channels = Channels::parse("green white red blue").unwrap();
    let shown = Shown { level, intensities: intensities.to_vec() };
    let now = LightState::plain(shown.light(most) > 0, u16::MAX, ColorMode::None);
    Target::of(&change, &now, &shown, most, Some(&channels)).shown
}

#[test]
fn intensities_use_the_range_of_the_led() {
    let on = || LightChange { on: Some(true), ..LightChange::default() };
    let red = || LightChange { color: Some(ColorMode::Color(Gamut::SRGB.red)), ..on() };
    for most in [1, 31, 255, 4_095, u32::MAX] {
        let wanted = Shown { level: most, intensities: vec![0, 0, most, 0] };
        assert_eq!(told(red(), 0, &[0, 0, 0, 0], most), wanted);
        // Dark at any brightness: whoever turns it on wants light.
        let white = Shown { level: most, intensities: vec![most; 4] };
        assert_eq!(told(on(), most, &[0, 0, 0, 0], most), white);
    }
    // The colour that it has stays, and takes all of the range, so that the brightness is what is asked for.
    let half = LightChange { brightness: Some(color::from_percent(50)), ..on() };
    let wanted = Shown { level: 128, intensities: vec![255, 0, 128, 0] };
    assert_eq!(told(half, 255, &[100, 0, 50, 0], 255), wanted);
    let off = LightChange { on: Some(false), ..LightChange::default() };
    let wanted = Shown { level: 0, intensities: vec![100, 0, 50, 0] };
    assert_eq!(told(off, 255, &[100, 0, 50, 0], 255), wanted);
}

#[test]
fn a_led_is_as_bright_as_its_strongest_channel() {
    let light = |level, intensities: &[u32]| Shown { level, intensities: intensities.to_vec() }.light(255);
    assert_eq!((light(200, &[]), light(200, &[255, 0, 3])), (200, 200));
    assert_eq!((light(200, &[0, 51, 0]), light(1, &[1, 0, 0])), (40, 1));
    assert_eq!((light(200, &[0, 0, 0]), light(0, &[255, 255, 255])), (0, 0));
    assert_eq!(light(200, &[4_000, 0, 0]), 200, "more than the kernel documents");
}

fn lit(brightness: u16) -> LightState {
    LightState::plain(true, brightness, ColorMode::None)
}

#[test]
fn a_change_keeps_what_it_leaves_open() {
    let change = |on, brightness| LightChange { on, brightness, ..LightChange::default() };
    let dark = LightState::plain(false, 32_768, ColorMode::None);
    let shown = Shown { level: 0, intensities: Vec::new() };
    let target = |change: &LightChange, now: &LightState| Target::of(change, now, &shown, 255, None);
    assert_eq!(target(&change(Some(true), None), &dark).shown.level, 128);
    assert_eq!(target(&change(None, Some(65_535)), &dark).shown.level, 0, "dimming lights nothing");
    assert_eq!(target(&change(None, Some(65_535)), &dark).light.brightness, 65_535);
    assert_eq!(target(&change(Some(false), None), &lit(9_000)).shown.level, 0);
    assert_eq!(target(&change(Some(true), Some(0)), &lit(9_000)).shown.level, 1);
    let red = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.red)), ..change(None, None) };
    assert_eq!(target(&red, &lit(65_535)).light.color, ColorMode::None, "it has one colour");
    assert_eq!(target(&red, &lit(65_535)).shown, Shown { level: 255, intensities: Vec::new() });
}

fn leds(folder: &Folder, which: &[&str]) -> Leds {
    let which = if which == ["*"] {
        Which::Free
    } else {
        Which::Named(which.iter().map(|name| (*name).to_owned()).collect())
    };
    Leds { folder: folder.0.join("class/leds"), which, board: "0123456789abcdef".to_owned() }
}

#[test]
fn leds_of_the_kernel_are_left_alone_unless_they_are_named() {
    let folder = Folder::new();
    for (name, trigger) in [("ACT", "none [mmc0]"), ("pwm:warm", "[none] mmc0")] {
        folder.file(&format!("class/leds/{name}/max_brightness"), "255\n");
        folder.file(&format!("class/leds/{name}/brightness"), "0\n");
        folder.file(&format!("class/leds/{name}/trigger"), trigger);
    }
    let free = leds(&folder, &["*"]).list(&Default::default()).unwrap();
    assert_eq!(free.found.len(), 1);
    assert_eq!(free.found[0].description.id.as_str(), "sysfs-led-0123456789abcdef-pwm-warm");
    let named = leds(&folder, &["ACT", "nowhere"]).list(&Default::default()).unwrap();
    assert!(
        named.remarks[0].contains("nowhere") && named.remarks[0].contains("cannot read"),
        "{:?}",
        named.remarks
    );
    assert!(named.found[0].description.note.as_ref().unwrap().contains("mmc0"));
    let on = Change::Light(LightChange { on: Some(true), ..LightChange::default() });
    let led = &named.found[0].place;
    assert!(leds(&folder, &["ACT"]).apply(led, &on, None).unwrap().follows);
    let file = |name: &str| std::fs::read_to_string(folder.0.join("class/leds/ACT").join(name)).unwrap();
    assert_eq!((file("trigger").as_str(), file("brightness").as_str()), ("none\n", "255\n"));
}

#[test]
fn a_led_whose_file_cannot_be_read_for_once_stays() {
    let folder = Folder::new();
    folder.file("class/leds/a/max_brightness", "255\n");
    folder.file("class/leds/a/brightness", "0\n");
    let hardware = leds(&folder, &["a"]);
    let found = hardware.list(&Default::default()).unwrap().found.remove(0);
    let known = std::collections::BTreeMap::from([(found.description.id.clone(), found.place)]);
    folder.file("class/leds/a/max_brightness", "\n");
    let listing = hardware.list(&known).unwrap();
    assert!(listing.found.is_empty() && listing.unsure.contains(&found.description.id), "{listing:?}");
    std::fs::remove_dir_all(folder.0.join("class/leds/a")).unwrap();
    let listing = hardware.list(&known).unwrap();
    assert!(listing.unsure.is_empty() && listing.remarks[0].contains("LED a"), "it was pulled: {listing:?}");
}

#[test]
fn a_led_without_levels_is_a_light_that_does_not_dim() {
    let folder = Folder::new();
    folder.file("class/leds/a/max_brightness", "1\n");
    folder.file("class/leds/a/brightness", "1\n");
    let listing = leds(&folder, &["*"]).list(&Default::default()).unwrap();
    let Capabilities::Light(can) = &listing.found[0].description.capabilities else { panic!("no light") };
    assert!(!can.brightness && can.color.is_none());
    let read = leds(&folder, &["*"]).read(&listing.found[0].place, None).unwrap();
    assert_eq!(read.state, Some(State::Light(lit(u16::MAX))));
}

#[test]
fn a_led_of_three_colours_takes_and_shows_them() {
    let folder = Folder::new();
    folder.file("class/leds/rgb/max_brightness", "255\n");
    folder.file("class/leds/rgb/brightness", "0\n");
    folder.file("class/leds/rgb/multi_index", "green red blue\n");
    folder.file("class/leds/rgb/multi_intensity", "0 0 0\n");
    let hardware = leds(&folder, &["rgb"]);
    let listing = hardware.list(&Default::default()).unwrap();
    let led = &listing.found[0].place;
    let change = LightChange {
        on: Some(true),
        brightness: Some(color::from_percent(50)),
        color: Some(ColorMode::Color(Gamut::SRGB.red)),
        ..LightChange::default()
    };
    let applied = hardware.apply(led, &Change::Light(change.clone()), None).unwrap();
    assert!(applied.follows);
    assert!(Change::Light(change).matches(&applied.sample.state.unwrap(), &Default::default()));
    let file = |name: &str| std::fs::read_to_string(folder.0.join("class/leds/rgb").join(name)).unwrap();
    assert_eq!((file("multi_intensity").as_str(), file("brightness").as_str()), ("0 255 0\n", "128\n"));
}

#[test]
fn a_led_that_stays_dark_is_not_on() {
    let folder = Folder::new();
    folder.file("class/leds/two/max_brightness", "31\n");
    folder.file("class/leds/two/brightness", "31\n");
    folder.file("class/leds/two/multi_index", "amber white\n");
    folder.file("class/leds/two/multi_intensity", "0 0\n");
    let hardware = leds(&folder, &["two"]);
    let found = hardware.list(&Default::default()).unwrap().found.remove(0);
    let Capabilities::Light(can) = &found.description.capabilities else { panic!("no light") };
    assert!(can.brightness && can.color.is_none());
    let is_on = |sample: crate::board::Sample| sample.state.unwrap().is_on();
    assert_eq!(is_on(hardware.read(&found.place, None).unwrap()), Some(false));
    let on = Change::Light(LightChange { on: Some(true), ..LightChange::default() });
    assert!(hardware.apply(&found.place, &on, None).unwrap().follows);
    let file = |name: &str| std::fs::read_to_string(folder.0.join("class/leds/two").join(name)).unwrap();
    assert_eq!((file("multi_intensity").as_str(), file("brightness").as_str()), ("31 31\n", "31\n"));
}

#[test]
fn a_right_that_is_missing_is_named_with_the_way_out() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
        let error = AttributeError::Write { path: "brightness".into(), source: kind.into() };
        assert!(matches!(super::failed(&error), Fault::Refused(reason) if reason.contains("leds.conf")));
    }
    let error = AttributeError::Write { path: "brightness".into(), source: ErrorKind::BrokenPipe.into() };
    assert!(matches!(super::failed(&error), Fault::Failed(_)));
}

proptest! {
    #[test]
    fn files_of_noise_are_read_without_a_panic(text in "(?s).{0,200}", a: u32, b: u32, c: u32) {
        let _ = active_trigger(&text);
        if let Some(channels) = Channels::parse(&text) {
            let _ = channels.read(&text);
        }
        let channels = Channels::parse("red green blue").unwrap();
        let _ = channels.read(&text);
        prop_assert_eq!(channels.color_of(&[a, b, c]).is_none(), a == 0 && b == 0 && c == 0);
    }
}
