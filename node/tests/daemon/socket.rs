//! Who may open the Unix socket.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::process::{Daemon, TempFolder};

/// A group that every Debian has and that `nobody` is not in, with its number.
const GROUP: (&str, &str) = ("daemon", "1");

/// The command line as the user `nobody`, with these further groups.
struct Nobody {
    hearth: PathBuf,
    _folder: TempFolder,
}

impl Nobody {
    fn new() -> Self {
        let root = rustix::process::geteuid().is_root();
        assert!(root, "this test runs the command line as another user: run it as root");
        let folder = TempFolder::new();
        // The build may lie where `nobody` cannot go. Another program makes the copy: a process that another test forks
        // meanwhile would hold what this one wrote open, and nobody can start that ("text file busy").
        let hearth = folder.path().join("hearth");
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_hearth")).arg(&hearth).status().unwrap();
        assert!(copied.success(), "{copied}");
        Self { hearth, _folder: folder }
    }

    fn status(&self, groups: &str, state: &Path) -> Output {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534"]);
        match groups {
            "" => command.arg("--clear-groups"),
            groups => command.args(["--groups", groups]),
        };
        command.arg(&self.hearth).arg("--state-dir").arg(state).arg("status");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.output().expect("setpriv, of util-linux, is missing")
    }
}

#[track_caller]
fn refused(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("you may not open") && said.contains("hearth.sock"), "{said}");
    said
}

#[test]
fn a_socket_that_the_user_may_not_open_says_which_command_mends_it_and_it_does() {
    let nobody = Nobody::new();
    let daemon = Daemon::start(&[("HEARTH_API_UNIX_GROUP", GROUP.0)]);
    let said = refused(&nobody.status("", &daemon.state()));
    assert!(said.contains("sudo usermod -aG daemon $USER"), "{said}");
    // What that command does, for one process.
    let allowed = nobody.status(GROUP.1, &daemon.state());
    assert!(allowed.status.success(), "{}", String::from_utf8_lossy(&allowed.stderr));
    assert!(String::from_utf8_lossy(&allowed.stdout).contains("self"));
    // The group may pass through the folder, and read nothing in it.
    let (status, shown) = daemon.request("GET", "/api/v1/setup-code", "");
    assert_eq!(status, 200, "{shown}");
    for file in ["node.key", "ca.key", "setup-code"] {
        assert!(daemon.state().join(file).exists(), "{file}");
        let read = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--groups", GROUP.1, "cat"])
            .arg(daemon.state().join(file))
            .output()
            .unwrap();
        assert!(!read.status.success() && read.stdout.is_empty(), "{file} can be read");
    }
}

#[test]
fn a_machine_without_the_group_is_told_another_way() {
    let nobody = Nobody::new();
    let daemon = Daemon::start(&[("HEARTH_API_UNIX_GROUP", "no-such-group")]);
    let said = refused(&nobody.status("", &daemon.state()));
    let has_usual =
        std::fs::read_to_string("/etc/group").unwrap().lines().any(|line| line.starts_with("hearth:"));
    assert!(said.contains("sudo before this command"), "{said}");
    assert_eq!(said.contains("usermod"), has_usual, "{said}");
}
