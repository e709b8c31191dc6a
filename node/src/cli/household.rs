//! `invite`, `join`, `leave`, `nodes`, `status`.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use hyper::Method;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::args::{InviteArgs, InviteCommand, JoinArgs, NodeRole, NodesArgs, NodesCommand};
use super::client::{garbled, segment};
use super::exit::{Exit, Failure};
use super::model::{Status, read, read_list, show_moment};
use super::output::Done;
use super::{Session, local, show};
use crate::config::duration::show_duration;

/// How long an invite holds.
const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);
/// How long the node may take to reach the one that invites.
const JOIN_TIME: Duration = Duration::from_secs(60);
/// How long a node may take to come back inside its new household.
const RESTART_TIME: Duration = Duration::from_secs(30);

impl Session {
    pub(super) async fn invite(&self, args: &InviteArgs) -> Done<Exit> {
        if args.command.is_some() && (args.ttl.is_some() || args.role.is_some() || args.qr) {
            let detail = "--ttl, --role and --qr are of a new invite, not of `list` or `revoke`";
            return Err(Failure::new(Exit::Usage, detail, "leave them out").into());
        }
        match &args.command {
            None => self.new_invite(args).await,
            Some(InviteCommand::List) => {
                let answer = self.client.get("/api/v1/invites").await?;
                let invites: Vec<Value> = read_list(&answer, "invites")?;
                self.out.either(&answer, || {
                    show::rows(
                        &invites,
                        ["ID", "ROLES", "EXPIRES", "USED"],
                        ["id", "roles", "expires", "used"],
                    )
                })?;
                Ok(Exit::Ok)
            }
            Some(InviteCommand::Revoke { id }) => {
                self.client.call(Method::DELETE, &format!("/api/v1/invites/{}", segment(id)), None).await?;
                self.done(json!({"id": id, "revoked": true}), format!("invite {id} is void"))
            }
        }
    }

    async fn new_invite(&self, args: &InviteArgs) -> Done<Exit> {
        let ttl = args.ttl.unwrap_or(DEFAULT_TTL);
        let role = match args.role.unwrap_or(NodeRole::Member) {
            NodeRole::Member => "member",
            NodeRole::Admin => "admin",
        };
        // The API counts whole seconds; one that is begun counts, so that no invite is void at birth.
        let seconds = ttl.as_millis().div_ceil(1_000);
        let body = json!({"ttl_s": u64::try_from(seconds).unwrap_or(u64::MAX), "roles": [role]});
        let answer = self.client.call(Method::POST, "/api/v1/invites", Some(&body)).await?;
        let token = answer.get("token").and_then(Value::as_str);
        let token = token.ok_or_else(|| garbled("its answer has no `token`".into()))?;
        // The code holds the secret, so it goes to people's eyes only, never into a log file.
        if args.qr || stderr().is_terminal() {
            match qr(token) {
                Some(code) => self.out.note(code),
                None => self.out.note("(the token is too long for a QR code)"),
            }
        }
        self.out.note(format!(
            "One more node may join as {role} within {}. On that board:\n  hearth run --join TOKEN     if it is new\n  \
             hearth join TOKEN           if it runs already",
            show_duration(ttl)
        ));
        if let Some(expires) = answer.get("expires") {
            self.out.note(format!("expires {}; the token:", show_moment(expires)));
        }
        self.out.either(&answer, || token.to_owned())?;
        Ok(Exit::Ok)
    }

    pub(super) async fn join(&self, args: &JoinArgs) -> Done<Exit> {
        let token = local::from_stdin(&args.token)?;
        let before = self.household().await?;
        let body = json!({"token": token.expose(), "force": args.force});
        let answer = self.client.patient(JOIN_TIME).call(Method::POST, "/api/v1/join", Some(&body)).await?;
        let household = answer.get("household").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.out.note("joined; the node restarts inside the household…");
        self.come_back(&before, &household).await?;
        self.out
            .either(&answer, || format!("joined household {}", household.get(..16).unwrap_or(&household)))?;
        self.out.note("see the others with: hearth status");
        Ok(Exit::Ok)
    }

    async fn household(&self) -> Result<String, Failure> {
        Ok(read::<Status>(&self.client.get("/api/v1/status").await?)?.household)
    }

    /// Waits until the node answers from inside its new household.
    async fn come_back(&self, before: &str, after: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + RESTART_TIME;
        loop {
            match self.household().await {
                Ok(now) if now == after || now != before => return Ok(()),
                // While it restarts there is no socket, or one that nobody listens on.
                Ok(_) => {}
                Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::Failure) => {}
                Err(failure) => return Err(failure),
            }
            if Instant::now() >= deadline {
                let detail = format!("the node has not come back within {} s", RESTART_TIME.as_secs());
                return Err(Failure::new(
                    Exit::TimedOut,
                    detail,
                    "look into its log; start it again if it is gone",
                ));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) async fn leave(&self, force: bool) -> Done<Exit> {
        let before = self.household().await?;
        let body = json!({"force": force});
        let answer = self.client.patient(JOIN_TIME).call(Method::POST, "/api/v1/leave", Some(&body)).await?;
        self.out.note("left; the node restarts in a household of its own…");
        self.come_back(&before, "").await?;
        self.out.either(&answer, || "left the household".into())?;
        Ok(Exit::Ok)
    }

    pub(super) async fn nodes(&self, args: &NodesArgs) -> Done<Exit> {
        if let Some(NodesCommand::Rename { node, name }) = &args.command {
            let path = format!("/api/v1/nodes/{}", segment(node));
            let answer = self.client.call(Method::PATCH, &path, Some(&json!({"name": name}))).await?;
            self.out.either(&answer, || format!("{node} is now {name}"))?;
            return Ok(Exit::Ok);
        }
        if let Some(NodesCommand::Remove { node, yes, force }) = &args.command {
            return self.remove(node, *yes, *force).await;
        }
        let answer = self.client.get("/api/v1/status").await?;
        let status: Status = read(&answer)?;
        let nodes = answer.get("nodes").cloned().unwrap_or_else(|| json!([]));
        self.out.either(&json!({"nodes": nodes}), || show::nodes(&status, self.out.colour))?;
        Ok(Exit::Ok)
    }

    pub(super) async fn status(&self) -> Done<Exit> {
        let answer = self.client.get("/api/v1/status").await?;
        let status: Status = read(&answer)?;
        self.out.either(&answer, || show::status(&status, self.out.colour))?;
        Ok(Exit::Ok)
    }
}

/// A QR code in half blocks, dark on light whatever the terminal's colours are. A token may be
/// written in either case; in upper case the code has an alphabet of its own, and is smaller.
fn qr(token: &str) -> Option<String> {
    let text = token.to_ascii_uppercase();
    let code = QrCode::with_error_correction_level(text, qrcode::EcLevel::L).ok()?;
    // Terminals are mostly dark: what is light in the code must be drawn.
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
    Some(code.render::<Dense1x2>().dark_color(dark).light_color(light).quiet_zone(true).build())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_qr_code_has_two_rows_a_line_and_light_around_it() {
        let code = qr("hearth-invite-token").unwrap();
        let lines: Vec<&str> = code.lines().collect();
        let width = lines.first().unwrap().chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width));
        assert_eq!(lines.len(), width.div_ceil(2), "one line for two rows of a square");
        assert!(lines.first().unwrap().chars().all(|c| c == '█'), "the quiet zone is drawn");
        assert!(qr(&"x".repeat(5_000)).is_none());
        let token = format!("hearth1-{}", "abcdefgh".repeat(36));
        assert!(qr(&token).unwrap().lines().count() < 40, "it fits a terminal");
    }
}
