//! The commands that need no running node: `run`, `config`, `completions`, `man`.

use std::io::Read;
use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use super::args::{Cli, ConfigCommand};
use super::exit::{Exit, Failure};
use super::output::{Done, Output};
use super::table::Table;
use super::values;
use super::{Daemon, Ready};
use crate::config::{self, ConfigError, Environment, Flags, JoinToken, rules};
use crate::logging;

/// The longest token that is read from stdin, in bytes.
const MAX_TOKEN_BYTES: u64 = 8192;

/// A wrong configuration is a usage error; its text holds the way out.
pub(super) fn config_failure(error: ConfigError) -> Failure {
    Failure { exit: Exit::Usage, detail: error.to_string(), fix: None, problem: None }
}

/// `hearth run`: the configuration, the log and the greeting here, the rest by the daemon.
pub(super) fn run(mut flags: Flags, env: &Environment, daemon: Daemon, out: Output) -> Done<Exit> {
    flags.join = flags.join.map(|token| from_stdin(&token)).transpose()?;
    let config = config::load(&flags, env).map_err(config_failure)?;
    logging::start(&config.log).map_err(|error| Failure {
        exit: Exit::Failure,
        detail: error.to_string(),
        fix: None,
        problem: None,
    })?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // What ran and broke may well run when it is started again.
    let broken = |error: Box<dyn std::error::Error>| Failure {
        exit: if error.is::<crate::daemon::Failed>() { Exit::Failure } else { Exit::CannotStart },
        detail: error.to_string(),
        fix: None,
        problem: None,
    };
    let announce = |ready: &Ready| {
        if out.json || !out.quiet {
            // A reader that is gone stops no daemon.
            let _ = out.either(&json!(ready), || greeting(ready, flags.state_dir.as_deref()));
        }
    };
    daemon(config, &announce).map_err(broken)?;
    Ok(Exit::Ok)
}

/// Where the API is and what to do next. The one-time code itself is a secret, and stdout may be a
/// log: it is there only when a person at a terminal has founded the household.
fn greeting(ready: &Ready, state_dir: Option<&Path>) -> String {
    let short = |key: &str| key.get(..16).unwrap_or(key).to_owned();
    let Ready { node, name, household, api, is_founded, setup_code } = ready;
    let place = state_dir.map(|folder| format!(" --state-dir {}", folder.display())).unwrap_or_default();
    let mut lines = vec![
        format!("node {name} ({node}) of household {} is ready", short(household)),
        format!("  API:  {}", api.join("  ")),
    ];
    if let Some(code) = setup_code {
        lines.push(format!("  setup code for the first admin, good for 15 minutes: {}", code.expose()));
    }
    let mut hint = |command: &str, what: &str| lines.push(format!("  hearth {command}{place}  {what}"));
    if *is_founded {
        hint("setup-code", "shows the one-time code that makes the first admin");
        hint("invite", "lets the next board join");
    } else {
        hint("devices", "shows the devices of the household");
    }
    hint("status", "shows its nodes");
    super::output::printable(&lines.join("\n"))
}

/// The token itself, or the one on stdin when it is `-`.
pub(super) fn from_stdin(token: &JoinToken) -> Result<JoinToken, Failure> {
    if token.expose() != "-" {
        return Ok(token.clone());
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut text);
    let fix = "pipe in what `hearth invite` prints: hearth join - < token.txt";
    read.map_err(|error| Failure::new(Exit::Usage, format!("stdin cannot be read: {error}"), fix))?;
    rules::join_token(&text)
        .map_err(|broken| Failure::new(Exit::Usage, format!("what stdin holds {broken}"), fix))
}

/// `hearth config show` and `hearth config default`.
pub(super) fn config(command: &ConfigCommand, flags: &Flags, env: &Environment, out: Output) -> Done<Exit> {
    match command {
        ConfigCommand::Default if out.json => out.document(&json!({"toml": config::DEFAULT_FILE}))?,
        ConfigCommand::Default => out.raw(config::DEFAULT_FILE.as_bytes())?,
        ConfigCommand::Show => {
            let config = config::load(flags, env).map_err(config_failure)?;
            let settings = config::shown(&config);
            let file = config.file.as_ref().map(|file| file.to_string_lossy().into_owned());
            out.either(&json!({"file": file, "settings": settings}), || {
                let mut table = Table::new(&["KEY", "VALUE", "FROM"]);
                for setting in &settings {
                    table.plain([setting.key.clone(), values::show(&setting.value), setting.origin.clone()]);
                }
                table.render(false)
            })?;
            for warning in &config.warnings {
                out.note(format!("note: {warning}"));
            }
        }
    }
    Ok(Exit::Ok)
}

/// `hearth completions SHELL`.
pub(super) fn completions(shell: clap_complete::Shell, out: Output) -> Done<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hearth", &mut script);
    if out.json {
        let script = String::from_utf8_lossy(&script);
        out.document(&json!({"shell": shell.to_string(), "script": script}))?;
    } else {
        out.raw(&script)?;
    }
    Ok(Exit::Ok)
}

/// `hearth man FOLDER`: one page of section 1 for each command.
pub(super) fn man(folder: &Path, out: Output) -> Done<Exit> {
    let count = write_pages(folder).map_err(|error| {
        let detail = format!("no manual can be written to {}: {error}", folder.display());
        Failure::new(Exit::Failure, detail, "make the folder, or name one that this user may write to")
    })?;
    if out.json {
        out.document(&json!({"folder": folder.to_string_lossy(), "pages": count}))?;
    }
    out.note(format!("wrote {count} pages to {}", folder.display()));
    Ok(Exit::Ok)
}

fn write_pages(folder: &Path) -> std::io::Result<usize> {
    // Pages of `help` would only repeat the others.
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut open = vec![root];
    let mut count = 0;
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        let page = clap_mangen::Man::new(command)
            .manual("Hearth")
            .source(concat!("hearth ", env!("CARGO_PKG_VERSION")));
        let mut text = Vec::new();
        page.render(&mut text)?;
        std::fs::write(folder.join(page.get_filename()), text)?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "hearth", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("setup-code") && script.contains("brightness"), "{shell}");
        }
    }

    #[test]
    fn every_command_has_a_page_that_names_its_options() {
        let folder = crate::api::fake::TestFolder::new();
        let count = write_pages(folder.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page("hearth.1").contains("hearth\\-run(1)"), "{}", page("hearth.1"));
        assert!(page("hearth-light.1").contains("kelvin"));
        assert!(page("hearth-token-create.1").contains("role"));
        assert!(!folder.path().join("hearth-help.1").exists());
        assert_eq!(count, std::fs::read_dir(folder.path()).unwrap().count());
        assert!(write_pages(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_node_says_where_its_api_is_and_what_to_do_next() {
        let mut ready = Ready {
            node: "a1".repeat(8),
            name: "kitchen".into(),
            household: "c3".repeat(32),
            api: vec!["https://10.0.0.1:7843".into(), "https://localhost:7843".into()],
            is_founded: true,
            setup_code: None,
        };
        let expected = "\
node kitchen (a1a1a1a1a1a1a1a1) of household c3c3c3c3c3c3c3c3 is ready
  API:  https://10.0.0.1:7843  https://localhost:7843
  hearth setup-code  shows the one-time code that makes the first admin
  hearth invite  lets the next board join
  hearth status  shows its nodes";
        assert_eq!(greeting(&ready, None), expected);
        ready.setup_code = Some(crate::auth::Secret::new("KT4M-9QWZ-H2PC"));
        assert!(greeting(&ready, None).contains("good for 15 minutes: KT4M-9QWZ-H2PC"));
        assert!(!json!(ready).to_string().contains("KT4M"), "not for programs");
        (ready.is_founded, ready.setup_code) = (false, None);
        let joined = greeting(&ready, Some(Path::new("/tmp/b")));
        assert!(joined.contains("hearth status --state-dir /tmp/b"), "{joined}");
        assert!(!joined.contains("setup-code") && !joined.contains("invite"), "{joined}");
    }

    #[test]
    fn a_token_on_the_command_line_is_taken_as_it_is() {
        let token = rules::join_token("abc").unwrap();
        assert_eq!(from_stdin(&token).unwrap(), token);
    }
}
