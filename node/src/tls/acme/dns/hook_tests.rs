#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use super::*;
use crate::cli::testing::TempDir;

/// A script in a folder of its own.
fn script(folder: &TempDir, text: &str) -> PathBuf {
    folder.script("hook", text)
}

async fn call(command: &Path, action: Action, within: Duration) -> Result<(), HookError> {
    run(command, action, &"_acme-challenge.example.org".parse().unwrap(), "the-value", within).await
}

#[tokio::test]
async fn a_command_is_told_what_to_do_and_nothing_else() {
    let folder = TempDir::new();
    let out = folder.path().join("out");
    let text = format!("#!/bin/sh\n{{ echo \"$@\"; pwd; cat; env | sort; }} > {}\n", out.display());
    call(&script(&folder, &text), Action::Present, WITHIN).await.unwrap();
    let told = fs::read_to_string(&out).unwrap();
    let mut lines = told.lines();
    assert_eq!(lines.next(), Some("present _acme-challenge.example.org. the-value"));
    assert_eq!(lines.next(), Some("/"));
    let known = [
        "HEARTH_DNS_ACTION=present",
        "HEARTH_DNS_NAME=_acme-challenge.example.org.",
        "HEARTH_DNS_VALUE=the-value",
    ];
    let rest: Vec<&str> = lines
        .filter(|line| !["PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own)))
        .collect();
    assert_eq!(rest, known, "a shell adds no more than those that are left out");
    call(&script(&folder, &text), Action::Cleanup, WITHIN).await.unwrap();
    assert!(fs::read_to_string(&out).unwrap().starts_with("cleanup _acme"));
}

#[tokio::test]
async fn a_failure_is_told_with_its_last_words() {
    let folder = TempDir::new();
    let noisy = "#!/bin/sh\nyes out | head -c 300000\nyes err | head -c 300000 >&2\n\
                 printf 'no such \\033[31mzone\\n\\n' >&2\nexit 3\n";
    let told = call(&script(&folder, noisy), Action::Present, WITHIN).await.unwrap_err().to_string();
    assert!(
        told.contains("present ended with exit status: 3") && told.contains("no such [31mzone"),
        "{told}"
    );
    let quiet = "#!/bin/sh\necho 'only said'\nkill -9 $$\n";
    let told = call(&script(&folder, quiet), Action::Cleanup, WITHIN).await.unwrap_err().to_string();
    assert!(told.contains("signal: 9") && told.contains("only said"), "{told}");
    let long = "#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x\nexit 1\n";
    let told = call(&script(&folder, long), Action::Cleanup, WITHIN).await.unwrap_err().to_string();
    assert!(told.len() < 600, "{told}");
}

#[tokio::test]
async fn what_cannot_be_started_is_told() {
    let folder = TempDir::new();
    let plain = folder.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    for command in [folder.path().join("missing"), plain] {
        let told = call(&command, Action::Present, WITHIN).await.unwrap_err();
        assert!(matches!(told, HookError::Start { .. }), "{told}");
    }
}

/// Whether a process still runs.
fn runs(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

async fn until_gone(pid: &str) {
    let pid = pid.to_owned();
    let gone = async {
        while runs(&pid) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), gone).await.unwrap_or_else(|_| panic!("{pid} still runs"));
}

/// One that waits for something that it started, and writes its number.
fn endless(folder: &TempDir) -> PathBuf {
    let pid = folder.path().join("pid");
    script(
        folder,
        &format!(
            "#!/bin/sh\necho begun\nsleep 1000 &\necho $! > {0}.new\nmv {0}.new {0}\nwait\n",
            pid.display()
        ),
    )
}

#[tokio::test]
async fn one_that_takes_too_long_is_killed_with_all_that_it_started() {
    let folder = TempDir::new();
    let error = call(&endless(&folder), Action::Present, Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(&error, HookError::Timeout { last, .. } if last == "begun"), "{error}");
    until_gone(&fs::read_to_string(folder.path().join("pid")).unwrap()).await;
}

#[tokio::test]
async fn one_that_nobody_waits_for_is_killed_too() {
    let folder = TempDir::new();
    let command = endless(&folder);
    let task = tokio::spawn(async move { call(&command, Action::Present, WITHIN).await });
    let pid = folder.path().join("pid");
    let begun = async {
        while !pid.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), begun).await.unwrap();
    task.abort();
    until_gone(&fs::read_to_string(&pid).unwrap()).await;
}

#[tokio::test]
async fn what_it_leaves_running_is_not_waited_for() {
    let folder = TempDir::new();
    let pid = folder.path().join("pid");
    let text = format!("#!/bin/sh\nsleep 1000 &\necho $! > {}\n", pid.display());
    call(&script(&folder, &text), Action::Present, WITHIN).await.unwrap();
    let left = fs::read_to_string(&pid).unwrap();
    assert!(runs(&left));
    let number = left.trim().parse().ok().and_then(Pid::from_raw).unwrap();
    rustix::process::kill_process(number, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_name_that_a_script_could_take_for_something_else_is_not_handed_to_it() {
    let folder = TempDir::new();
    let ran = folder.path().join("ran");
    let command = script(&folder, &format!("#!/bin/sh\ntouch {}\n", ran.display()));
    for label in ["$(id)", "a;b", "-rf", "a b", "a.b", "*", "\u{e9}"] {
        let name = Name::of_labels([label.as_bytes(), b"example", b"org"]).unwrap();
        let refused = run(&command, Action::Present, &name, "the-value", WITHIN).await.unwrap_err();
        assert!(matches!(refused, HookError::Name(_)), "{label}: {refused}");
    }
    assert!(!ran.exists());
}
