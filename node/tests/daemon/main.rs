//! The binary `hearth run` on its own: what a client of one node gets. Households of several nodes
//! are tested end to end elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod process;

use process::Daemon;

#[test]
fn the_setting_clock_decides_whether_the_clock_counts_as_right() {
    for (rule, expected) in [("trusted", true), ("untrusted", false)] {
        let daemon = Daemon::start(&[("HEARTH_CLOCK", rule)]);
        assert_eq!(daemon.get("/api/v1/status")["clock_synchronised"], expected, "{rule}");
    }
    let refused = Daemon::refused(&[("HEARTH_CLOCK", "right")]);
    assert!(refused.contains("HEARTH_CLOCK") && refused.contains("ask, trusted or untrusted"), "{refused}");
}
