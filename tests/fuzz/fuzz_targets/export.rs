//! An export file that somebody kept for years.
#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use node::store::export;

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("hearth-fuzz-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(data).unwrap();
    drop(file);
    let mut bytes = 0;
    let _ = export::read(&path, &mut |key, value| bytes += key.len() + value.len());
    assert!(bytes <= data.len());
    let _ = std::fs::remove_file(&path);
});
