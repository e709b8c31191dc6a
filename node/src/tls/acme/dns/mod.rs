//! DNS-01 (RFC 8555, section 8.4): TXT records `_acme-challenge.DOMAIN`, put where the household's DNS is kept.
