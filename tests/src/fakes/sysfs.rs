//! A folder that looks like the kernel's sysfs, and counts who opens what in it.
//!
//! Sources: Documentation/filesystems/sysfs.rst, Documentation/ABI/testing/sysfs-class-led,
//! Documentation/w1/slaves/w1_therm.rst and Documentation/ABI/testing/sysfs-bus-iio of the Linux kernel. A kernel without
//! the hardware shows nothing there, so these are plain files; what they hold is as the kernel writes it.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use device_adapters::contract::{Ignores, Peer};
use device_adapters::model::{Change, DeviceId};
use rustix::fs::inotify;
use tokio::time::Instant;

/// What stands in the place of a file.
#[derive(Debug, Clone)]
pub enum Strange {
    /// Another text, or no text.
    Bytes(Vec<u8>),
    /// A folder, which cannot be read as a file.
    Folder,
    /// Nothing.
    Nothing,
    /// A file without end, of zeros.
    Endless,
    /// A file that takes everything and keeps nothing.
    Forgetful,
    /// A file that never answers.
    Hanging,
}

impl Strange {
    /// Texts that no driver writes, and things that are no file.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let texts: [&[u8]; 8] = [
            b"",
            b"\n",
            b"garbage\n",
            b"NaN\n",
            b"-1e999\n",
            b"99999999999999999999\n",
            b"\xff\xfe\x00\x01",
            b"7",
        ];
        let texts = texts.into_iter().map(|text| Self::Bytes(text.to_vec()));
        let huge = Self::Bytes(vec![b'1'; 3 << 20]);
        let others = [huge, Self::Folder, Self::Nothing, Self::Endless, Self::Forgetful, Self::Hanging];
        texts.chain(others).collect()
    }
}

/// The folder.
#[derive(Debug)]
pub struct Sysfs {
    root: PathBuf,
    opened: Arc<Mutex<Vec<(Instant, String)>>>,
    stop: Arc<AtomicBool>,
    inotify: Arc<rustix::fd::OwnedFd>,
    /// Pipes that stand in the place of files, and their other sides: whoever reads one waits until that is closed.
    hanging: Vec<(PathBuf, fs::File)>,
}

impl Sysfs {
    /// An empty one.
    ///
    /// # Errors
    /// When it cannot be made or watched.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("hearth-sysfs-{}-{count}", std::process::id()));
        fs::create_dir_all(root.join("aside"))?;
        let inotify = Arc::new(inotify::init(inotify::CreateFlags::CLOEXEC)?);
        inotify::add_watch(&*inotify, &root, inotify::WatchFlags::OPEN)?;
        let (opened, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (watch, log, end) = (Arc::clone(&inotify), Arc::clone(&opened), Arc::clone(&stop));
        thread::spawn(move || count_opens(&watch, &log, &end));
        Ok(Self { root, opened, stop, inotify, hanging: Vec::new() })
    }

    /// Where it is: the setting `root`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes or replaces a file as a whole; nobody sees half of it.
    pub fn put(&mut self, path: &str, text: &[u8]) {
        let made = self.aside();
        fs::write(&made, text).expect("a file beside");
        self.place(&made, path);
    }

    /// Puts something else in the place of a file.
    pub fn spoil(&mut self, path: &str, strange: &Strange) {
        let made = self.aside();
        match strange {
            Strange::Bytes(bytes) => fs::write(&made, bytes).expect("a file beside"),
            Strange::Folder => fs::create_dir(&made).expect("a folder beside"),
            Strange::Nothing => return self.clear(path),
            Strange::Endless => symlink("/dev/zero", &made).expect("a link beside"),
            Strange::Forgetful => symlink("/dev/null", &made).expect("a link beside"),
            Strange::Hanging => {
                let made_pipe = std::process::Command::new("mkfifo").arg(&made).status();
                assert!(made_pipe.is_ok_and(|status| status.success()), "mkfifo of coreutils is missing");
            }
        }
        self.clear(path);
        if matches!(strange, Strange::Hanging) {
            let side = fs::OpenOptions::new().read(true).write(true).open(&made).expect("a pipe opens");
            self.hanging.push((self.root.join(path), side));
        }
        self.place(&made, path);
    }

    /// Counts who opens files of this folder from now on.
    ///
    /// # Errors
    /// When it is not there.
    pub fn watch(&self, folder: &str) -> Result<()> {
        let path = self.root.join(folder);
        inotify::add_watch(&*self.inotify, &path, inotify::WatchFlags::OPEN)
            .with_context(|| format!("cannot watch {}", path.display()))?;
        Ok(())
    }

    /// Takes a folder away, as when a chip is pulled, or puts it back.
    pub fn pull(&mut self, folder: &str, pulled: bool) {
        let (there, away) = (self.root.join(folder), self.root.join("aside").join("pulled"));
        let (from, to) = if pulled { (&there, &away) } else { (&away, &there) };
        if from.exists() {
            fs::rename(from, to).expect("a folder is moved");
        }
    }

    /// What a file holds.
    #[must_use]
    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// When a file or folder of that name was opened; of any name if it is empty.
    #[must_use]
    pub fn opened(&self, name: &str) -> Vec<Instant> {
        let log = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter(|(_, opened)| name.is_empty() || opened == name).map(|(at, _)| *at).collect()
    }

    fn aside(&self) -> PathBuf {
        self.root.join("aside/next")
    }

    fn place(&self, made: &Path, path: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::rename(made, path).expect("a file is moved");
    }

    fn clear(&mut self, path: &str) {
        let path = self.root.join(path);
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir());
        let _ = if is_folder { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        self.hanging.retain(|(hanging, _)| *hanging != path); // who waits is let go, and finds it no more
    }
}

impl Drop for Sysfs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = fs::read_dir(&self.root); // wakes who counts
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn count_opens(watch: &rustix::fd::OwnedFd, log: &Mutex<Vec<(Instant, String)>>, stop: &AtomicBool) {
    let mut buffer = [MaybeUninit::uninit(); 4_096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    while let Ok(event) = reader.next() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if event.events().contains(inotify::ReadFlags::OPEN) {
            log.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), name));
        }
    }
}

/// Files that tell what a device is; the others tell what it shows.
const DESCRIBING: [&str; 3] = ["name", "max_brightness", "trigger"];

/// A device of such a folder as the peer of the contract.
#[derive(Debug)]
pub struct SysfsPeer {
    /// The folder.
    pub sysfs: Sysfs,
    device: DeviceId,
    /// The folder of the device.
    folder: String,
    /// Its files as they should be.
    files: BTreeMap<String, String>,
    changes: Vec<Change>,
    /// Which file is wrong in which way, by number.
    wrong: Vec<(String, Strange)>,
}

impl SysfsPeer {
    /// A device whose folder is in `listing`, with these files.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(device: &str, listing: &str, name: &str, files: &[(&str, &str)]) -> Result<Self> {
        let folder = format!("{listing}/{name}");
        let files = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
        let (device, sysfs) = (DeviceId::new(device)?, Sysfs::new()?);
        let mut peer = Self { sysfs, device, folder, files, changes: Vec::new(), wrong: Vec::new() };
        peer.restore();
        peer.sysfs.watch(listing)?;
        peer.sysfs.watch(&peer.folder)?;
        Ok(peer)
    }

    /// With these changes that it is able to carry out.
    #[must_use]
    pub fn carries_out(mut self, changes: Vec<Change>) -> Self {
        self.changes = changes;
        self
    }

    /// With this file wrong in each of these ways.
    #[must_use]
    pub fn spoils(mut self, file: &str, ways: Vec<Strange>) -> Self {
        self.wrong.extend(ways.into_iter().map(|way| (file.to_owned(), way)));
        self
    }

    /// The path of one of its files.
    #[must_use]
    pub fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    fn restore(&mut self) {
        for (file, text) in self.files.clone() {
            let path = self.path(&file);
            self.sysfs.clear(&path);
            self.sysfs.put(&path, text.as_bytes());
        }
    }
}

impl Peer for SysfsPeer {
    fn device(&self) -> DeviceId {
        self.device.clone()
    }

    fn changes(&self) -> Vec<Change> {
        self.changes.clone()
    }

    async fn ignore(&mut self) -> Ignores {
        Ignores::Nothing("a file keeps what is written to it: only a driver of the kernel drops it")
    }

    async fn silence(&mut self) {
        self.sysfs.pull(&self.folder.clone(), true);
    }

    async fn recover(&mut self) {
        self.sysfs.pull(&self.folder.clone(), false);
        self.restore();
    }

    async fn misbehave(&mut self, number: usize) -> bool {
        self.restore();
        let Some((file, strange)) = self.wrong.get(number).cloned() else { return false };
        let path = self.path(&file);
        self.sysfs.spoil(&path, &strange);
        true
    }

    fn asked(&self) -> Vec<Instant> {
        self.sysfs.opened("")
    }

    fn most_a_second(&self) -> usize {
        // 20 changes, for each of which 6 files are opened, a poll and a look for devices.
        160
    }

    fn touched(&self) -> usize {
        let shown = self.files.keys().filter(|file| !DESCRIBING.contains(&file.as_str()));
        shown.map(|file| self.sysfs.opened(file).len()).sum()
    }
}
