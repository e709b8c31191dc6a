//! Values: what decodes encodes again, within its limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_proto::Value;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Value::decode(data) {
        let bytes = value.encode().unwrap();
        assert_eq!(Value::decode(&bytes).unwrap(), value);
    }
});
