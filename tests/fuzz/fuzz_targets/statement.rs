//! Membership statements and roster files of a stranger.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_proto::{
    HouseholdId,
    roster::{Roster, Statement},
};

fuzz_target!(|data: &[u8]| {
    let Some((household, rest)) = data.split_first_chunk::<32>() else { return };
    let household = HouseholdId::from_bytes(*household);
    if let Ok(statement) = Statement::decode(household, rest) {
        assert_eq!(statement.bytes(), rest);
        let _ = statement.verify(household);
    }
    let mut roster = Roster::empty(household);
    let _ = roster.insert(rest);
    if let Ok(roster) = Roster::from_bytes(data) {
        assert_eq!(roster.to_bytes(), data);
    }
});
