//! What a person pastes as an invite.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::auth::InviteToken;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = text.parse::<InviteToken>()
    {
        assert_eq!(token.to_string().parse::<InviteToken>().unwrap().to_string(), token.to_string());
    }
});
