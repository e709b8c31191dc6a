//! An export file or a backup that somebody kept for years: as it is, and with the checksum that belongs to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::store::export;

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("hearth-fuzz-{}", std::process::id()));
    let whole = [data, blake3::hash(data).as_bytes()].concat();
    for file in [data, &whole] {
        std::fs::write(&path, file).unwrap();
        let mut bytes = 0;
        let _ = export::read(&path, &mut |key, value| bytes += key.len() + value.len());
        assert!(bytes <= file.len());
        let _ = node::backup::Backup::open(&path);
    }
    let _ = std::fs::remove_file(&path);
});
