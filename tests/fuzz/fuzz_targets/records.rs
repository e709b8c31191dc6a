//! A store whose records were damaged: it loads, or names the newer version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_proto::{mesh::Loader, planted::Plant};

fuzz_target!(|data: &[u8]| {
    let mut loader = Loader::new(Plant::default());
    // Each record: the length of its key, that of its value, both.
    let mut rest = data;
    while let Some(([key, value], after)) = rest.split_first_chunk::<2>() {
        let Some((key, after)) = after.split_at_checked(usize::from(*key)) else { return };
        let Some((value, after)) = after.split_at_checked(usize::from(*value)) else { return };
        let _ = loader.record(key, value);
        rest = after;
    }
});
