//! A daemon in a folder of its own.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub(crate) struct Daemon {
    child: Child,
    folder: TempFolder,
}

impl Daemon {
    /// Starts it with these variables and waits until its API answers.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_in(TempFolder::new(), variables)
    }

    /// Starts it with this config file.
    pub(crate) fn with_config(text: &str) -> Self {
        let folder = TempFolder::new();
        let file = folder.write("hearth.toml", text);
        Self::start_in(folder, &[("HEARTH_CONFIG", file.to_str().unwrap())])
    }

    fn start_in(folder: TempFolder, variables: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(folder.0.join("log")).unwrap();
        let child = command(&folder.0, variables).stderr(log).spawn().unwrap();
        let mut daemon = Self { child, folder };
        wait_until("the API answers", || {
            if let Some(exit) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended with {exit}: {}", daemon.log());
            }
            UnixStream::connect(daemon.socket()).is_ok()
        });
        daemon
    }

    /// What a daemon says that cannot start.
    pub(crate) fn refused(variables: &[(&str, &str)]) -> String {
        let folder = TempFolder::new();
        let output = command(&folder.0, variables).stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Its state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.0.join("state")
    }

    /// Its Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.state().join("hearth.sock")
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.get("/api/v1/status")["listen"].as_str().unwrap().parse().unwrap()
    }

    /// A JSON document over the Unix socket.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.request("GET", path, "").1
    }

    /// One request over the Unix socket.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that goes away with its owner. Its path is short: a Unix socket must fit below it.
pub(crate) struct TempFolder(PathBuf);

impl TempFolder {
    /// A new one.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("hd-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn command(folder: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.env_clear().env("HOME", folder).envs(variables.iter().copied());
    command.args(["run", "--listen", "127.0.0.1:0", "--state-dir"]).arg(folder.join("state"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Waits until the condition holds, and fails the test when it does not in time.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(25));
    }
}
