//! `hearth issuer`.

use std::io::{IsTerminal as _, Read as _, stdin};
use std::path::Path;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::args::{IssuerArgs, IssuerCommand};
use super::client::segment;
use super::exit::{Exit, Failure};
use super::model::{read_list, show_moment};
use super::output::{Done, printable};
use super::schedules::{list, text};
use super::table::{Table, Tint};
use super::{Session, program};
use crate::auth::Secret;

const ISSUERS: &str = "/api/v1/issuers";
/// More than any token that is taken, so that one that is too long is told so by the node.
const MAX_TOKEN: u64 = 64 * 1024;

impl Session {
    pub(super) async fn issuer(&self, command: &IssuerCommand) -> Done<Exit> {
        match command {
            IssuerCommand::List => {
                let answer = self.client.get(ISSUERS).await?;
                let issuers: Vec<Value> = read_list(&answer, "issuers")?;
                self.out.either(&answer, || all(&issuers, self.out.colour))?;
                Ok(Exit::Ok)
            }
            IssuerCommand::Show { name } => {
                let answer = self.client.get(&path(name)).await?;
                self.out.either(&answer, || one(&answer))?;
                Ok(Exit::Ok)
            }
            IssuerCommand::Add(args) => self.add_issuer(args).await,
            IssuerCommand::Test { name } => self.test_token(name).await,
            IssuerCommand::Remove { name } => {
                self.client.call(Method::DELETE, &path(name), None).await?;
                self.done(json!({"name": name, "removed": true}), format!("{name} is trusted no more"))
            }
        }
    }

    async fn add_issuer(&self, args: &IssuerArgs) -> Done<Exit> {
        let answer = self.client.call(Method::PUT, &path(&args.name), Some(&body(args)?)).await?;
        if self.out.json {
            self.out.document(&answer)?;
        }
        self.out.note(format!("{} is trusted", args.name));
        if !text(&answer, "error").is_empty() {
            self.out.note(printable(&format!(
                "its keys could not be fetched, which is tried again: {}",
                text(&answer, "error")
            )));
        }
        Ok(Exit::Ok)
    }

    async fn test_token(&self, name: &str) -> Done<Exit> {
        let token = token_from_stdin()?;
        let answer = self
            .client
            .call(Method::POST, &format!("{}/test", path(name)), Some(&json!({"token": token.expose()})))
            .await?;
        self.out.either(&answer, || trial(&answer))?;
        let is_accepted = answer.get("accepted").and_then(Value::as_bool) == Some(true);
        Ok(if is_accepted { Exit::Ok } else { Exit::Refused })
    }
}

fn path(name: &str) -> String {
    format!("{ISSUERS}/{}", segment(name))
}

/// Never from the command line, which other users of the machine can see.
fn token_from_stdin() -> Result<Secret, Failure> {
    let fix = "pipe it in: hearth issuer test NAME < token.txt";
    if stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "the token is read from stdin, which is a terminal", fix));
    }
    let mut token = String::new();
    let read = stdin().lock().take(MAX_TOKEN).read_to_string(&mut token);
    read.map_err(|error| Failure::new(Exit::Usage, format!("stdin cannot be read: {error}"), fix))?;
    Ok(Secret::new(token.trim()))
}

/// What the API takes.
fn body(args: &IssuerArgs) -> Result<Value, Failure> {
    if let Some(file) = &args.file {
        let fix = Some("docs/security.md shows such a file".to_owned());
        return program::read(file).map(Value::Object).map_err(|failure| Failure { fix, ..failure });
    }
    let map: Map<_, _> = args.role.iter().map(|(value, role)| (value.clone(), json!(role))).collect();
    let seconds = |time: std::time::Duration| json!(time.as_secs());
    let optional = [
        ("jwks", args.jwks.as_ref().map(|jwks| json!(jwks))),
        ("subject", args.subject.as_ref().map(|subject| json!(subject))),
        ("root", args.root.as_deref().map(pem).transpose()?),
        ("leeway_s", args.leeway.map(seconds)),
        ("max_age_s", args.max_age.map(seconds)),
    ];
    let mut body = Map::from_iter([
        ("url".to_owned(), json!(args.url)),
        ("audience".to_owned(), json!(args.audience)),
        ("algorithms".to_owned(), json!(args.algorithm)),
        ("roles".to_owned(), json!({"claim": args.claim, "map": map})),
    ]);
    body.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Ok(Value::Object(body))
}

fn pem(file: &Path) -> Result<Value, Failure> {
    std::fs::read_to_string(file).map(Value::from).map_err(|error| {
        let detail = format!("{} cannot be read: {error}", file.display());
        Failure::new(Exit::Usage, detail, "give the certificate of the authority in PEM")
    })
}

fn all(issuers: &[Value], colour: bool) -> String {
    if issuers.is_empty() {
        return "no issuer is trusted: `hearth issuer add` says how to change that".to_owned();
    }
    let mut table = Table::new(&["NAME", "URL", "ALGORITHMS", ">KEYS", "FETCHED", "WHY NOT"]);
    for issuer in issuers {
        let plain = |text: &str| (text.to_owned(), Tint::Plain);
        let (keys, tint) = match issuer.get("keys").and_then(Value::as_u64) {
            None => ("none".to_owned(), Tint::Bad),
            Some(0) => ("0".to_owned(), Tint::Bad),
            Some(count) => (count.to_string(), Tint::Plain),
        };
        table.row([
            plain(text(issuer, "name")),
            plain(text(issuer, "url")),
            plain(&words(issuer, "algorithms")),
            (keys, tint),
            plain(&issuer.get("fetched").map(show_moment).unwrap_or_default()),
            plain(text(issuer, "error")),
        ]);
    }
    table.render(colour)
}

fn words(value: &Value, member: &str) -> String {
    list(value, member).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn one(issuer: &Value) -> String {
    let number = |member: &str| issuer.get(member).and_then(Value::as_u64);
    let roles = issuer.get("roles").cloned().unwrap_or_default();
    let mut table = Table::new(&["WHAT", "IS"]);
    let mut row = |what: &str, is: String| {
        if !is.is_empty() {
            table.plain([what.to_owned(), is]);
        }
    };
    row("name", text(issuer, "name").to_owned());
    row("url", text(issuer, "url").to_owned());
    row("keys from", text(issuer, "jwks").to_owned());
    row("audience", words(issuer, "audience"));
    row("algorithms", words(issuer, "algorithms"));
    row("subject", text(issuer, "subject").to_owned());
    for (value, given) in roles.get("map").and_then(Value::as_object).into_iter().flatten() {
        let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
        row(&format!("{} {value}", text(&roles, "claim")), given);
    }
    row("clocks differ", number("leeway_s").map(|s| format!("{s} s at most")).unwrap_or_default());
    row("age", number("max_age_s").map(|s| format!("{s} s at most")).unwrap_or_default());
    row("keys", number("keys").map_or_else(|| "none yet".to_owned(), |count| count.to_string()));
    row("fetched", issuer.get("fetched").filter(|at| !at.is_null()).map(show_moment).unwrap_or_default());
    row("why not", text(issuer, "error").to_owned());
    let since = issuer.get("failing_since").filter(|at| !at.is_null());
    row("failing since", since.map(show_moment).unwrap_or_default());
    table.render(false)
}

fn trial(answer: &Value) -> String {
    let found = words(answer, "found");
    let found =
        if found.is_empty() { String::new() } else { format!("\nthe claim for roles holds: {found}") };
    let told = match answer.get("problem") {
        None => {
            let scope = answer.get("scope").filter(|scope| !scope.is_null());
            let part = scope.map(|scope| format!(" of {scope}")).unwrap_or_default();
            let until = answer.get("until").map(show_moment).unwrap_or_default();
            format!("{} would be {}{part}, until {until}", text(answer, "subject"), text(answer, "role"))
        }
        Some(problem) => format!("it would not be let in: {}", text(problem, "detail")),
    };
    printable(&told) + &printable(&found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    #[test]
    fn flags_say_the_same_as_a_file() {
        let line = "hearth issuer add sso --url https://sso.example.org --audience hearth --audience home --algorithm \
                    RS256,ES256 --claim groups --role a=b=admin --role kids=viewer --leeway 30s --max-age 1h";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Issuer(IssuerCommand::Add(args)) = cli.command else { unreachable!() };
        let said = json!({"url": "https://sso.example.org", "audience": ["hearth", "home"],
            "algorithms": ["RS256", "ES256"], "roles": {"claim": "groups", "map": {"a=b": "admin", "kids": "viewer"}},
            "leeway_s": 30, "max_age_s": 3600});
        assert_eq!(body(&args).unwrap(), said);
        crate::auth::jwt::Spec::parse(said).unwrap();
        assert!(Cli::try_parse_from(["hearth", "issuer", "add", "sso"]).is_err());
    }

    #[test]
    fn a_trial_tells_whom_it_lets_in_or_why_nobody() {
        let scope = json!({"areas": ["hall"]});
        let yes = json!({"accepted": true, "subject": "ann", "role": "viewer", "scope": scope,
            "until": "2026-11-30T09:00:00.000Z", "found": ["kids"]});
        assert_eq!(
            trial(&yes),
            "ann would be viewer of {\"areas\":[\"hall\"]}, until 2026-11-30T09:00:00.000Z\nthe claim for roles holds: kids"
        );
        let no = json!({"accepted": false, "problem": {"detail": "`exp` in the token is past"}, "found": []});
        assert_eq!(trial(&no), "it would not be let in: `exp` in the token is past");
    }
}
