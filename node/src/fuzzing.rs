//! What the fuzz targets run, by the target's name: readers of what strangers send. The properties of the unit tests run the same.

pub use crate::auth::jwt::fuzzing::run as jwt;
pub use crate::plain_http::fuzzing::run as head;
pub use crate::tls::acme::der::fuzzing::run as der;
pub use crate::tls::acme::dns::fuzzing::run as dns;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn no_bytes_break_a_reader(data in vec(any::<u8>(), 0..600)) {
            super::der(&data);
            super::dns(&data);
            super::head(&data);
            super::jwt(&data);
        }
    }
}
