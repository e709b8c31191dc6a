//! The binary `hearth run` on its own: what a client of one node gets. Households of several nodes
//! are tested end to end elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod observer;
mod process;
mod socket;

use process::{Daemon, TempFolder, wait_until};

#[test]
fn the_setting_clock_decides_whether_the_clock_counts_as_right() {
    for (rule, expected) in [("trusted", true), ("untrusted", false)] {
        let daemon = Daemon::start(&[("HEARTH_CLOCK", rule)]);
        assert_eq!(daemon.get("/api/v1/status")["clock_synchronised"], expected, "{rule}");
    }
    let refused = Daemon::refused(&[("HEARTH_CLOCK", "right")]);
    assert!(refused.contains("HEARTH_CLOCK") && refused.contains("ask, trusted or untrusted"), "{refused}");
}

/// The check of that name, as `hearth doctor` shows it.
fn check(daemon: &Daemon, name: &str) -> serde_json::Value {
    let checks = daemon.get("/api/v1/doctor")["checks"].as_array().unwrap().clone();
    checks.into_iter().find(|check| check["name"] == name).unwrap_or_default()
}

#[test]
fn the_doctor_shows_where_each_adapter_stands() {
    for (settings, status, words) in [
        ("enabled = false", "ok", "switched off"),
        ("broadcast = []\nbind = \"127.0.0.1:0\"", "ok", "runs"),
        ("poll_s = \"often\"", "fail", "poll_s"),
    ] {
        let daemon = Daemon::with_config(&format!("[adapters.lifx]\n{settings}\n"));
        wait_until("the adapter has its state", || check(&daemon, "adapter lifx")["status"] == status);
        let shown = check(&daemon, "adapter lifx");
        assert!(shown["detail"].as_str().unwrap().contains(words), "{shown}");
        assert_eq!(shown["fix"].is_string(), status == "fail", "{shown}");
    }
}

#[test]
fn an_adapter_that_does_not_exist_is_refused_with_file_line_and_key() {
    let folder = TempFolder::new();
    let file = folder.write("hearth.toml", "name = \"attic\"\n\n[adapters.zigbee]\nenabled = true\n");
    let said = Daemon::refused(&[("HEARTH_CONFIG", file.to_str().unwrap())]);
    let place = format!("{}:3:", file.display());
    assert!(said.contains(&place) && said.contains("`adapters.zigbee`") && said.contains("lifx"), "{said}");
}
