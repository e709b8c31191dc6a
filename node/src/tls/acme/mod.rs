//! Public certificates by ACME (RFC 8555): each gateway node orders its own, with its own key.
//!
//! | module | what it is |
//! | --- | --- |
//! | `engine` | the task: when something is due, what came of it, and who is told |
//! | `order` | one order, step by step, each kept on the disk before the one that cannot be repeated |
//! | `account` | the account at the authority |
//! | `files` | what is kept on the disk |
//! | `check` | what a new certificate must pass; `der` reads it |
//! | `pace`, `renewal`, `record` | when an order may be tried, when a certificate is renewed, whose turn it is: pure |
//! | `client`, `words`, `refusal` | HTTP to the authority, what it says is wrong, and what follows |
//! | `solve` | how proofs come to where the authority looks: `answers` and `dns` |
//! | `report` | what is shown |

mod account;
pub mod answers;
pub mod check;
pub mod client;
pub mod der;
pub mod dns;
pub mod engine;
#[cfg(test)]
mod fake;
mod files;
pub mod names;
mod order;
pub mod pace;
pub mod record;
mod refusal;
pub mod renewal;
pub mod report;
pub mod solve;
pub mod words;

pub use names::Domain;
