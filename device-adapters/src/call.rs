//! One call over HTTP for whoever is no adapter: an automation that tells another program something.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::{
    http::{Client, Origin, Request, public_tls},
    net::Route,
};

/// Most that is read of an answer, in bytes: nobody looks at it.
const MOST: usize = 64 * 1024;

/// Calls an address, with a body of JSON if there is one. No redirect is followed: it could lead anywhere.
///
/// # Errors
/// Why it cannot be called, or what it answered if that was no success. The text names the host and not the rest of the address, which
/// may be a secret.
pub async fn call(method: &str, url: &str, body: Option<&Value>, within: Duration) -> Result<(), String> {
    let (address, query) =
        url.split_once('?').map_or((url, String::new()), |(address, query)| (address, format!("?{query}")));
    let (origin, path) = Origin::parse(address).map_err(|error| error.to_string())?;
    let path = format!("{}{query}", if path.is_empty() { "/" } else { &path });
    let method: Method = method.parse().map_err(|_| format!("`{method}` is no method of HTTP"))?;
    let tls = if origin.tls { Some(public_tls()?) } else { None };
    let host = origin.to_string();
    let request = match body {
        Some(body) => Request::json(method, path, body),
        None => Request { method, ..Request::get(path) },
    };
    let mut client = Client::new(origin, Route::default(), tls);
    let request = Request { most: MOST, ..request.within(within) };
    let answer = client.send(&request).await.map_err(|error| error.to_string())?;
    if answer.status.is_success() { Ok(()) } else { Err(format!("{host} answered {}", answer.status)) }
}
