//! Serving the router on whatever carries bytes: the Unix socket that is bound here, and streams
//! that a listener hands over after its TLS handshake.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
};

use super::{
    access::{Peer, Uid},
    linger::Lingering,
    metrics::Metrics,
};
use crate::listener::{Guest, Place};

/// Connections of one server at once; a client beyond that waits for its turn.
pub const MAX_CONNECTIONS: usize = 256;
/// Longest path of a Unix socket on Linux, without its final zero (unix(7)).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Time for the head of a request, and for a connection to idle between two.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// Largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// At the end of the node, open requests get so long.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the Unix socket cannot be served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The path is longer than the system allows.
    #[error(
        "the path of the API socket, {}, has {bytes} bytes, the system allows {MAX_SOCKET_PATH_BYTES}: \
         choose a shorter --state-dir",
        path.display()
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Another daemon answers there.
    #[error(
        "another hearth answers at {}: stop it, or give this one its own --state-dir",
        path.display()
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket is in the way.
    #[error("{} is in the way and is no socket: move it elsewhere", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {action} the API socket {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A router with its limits. Cheap to clone; clones share the limits.
#[derive(Clone)]
pub struct HttpServer {
    router: Router,
    places: Arc<Semaphore>,
    lingering: Lingering,
    metrics: Arc<Metrics>,
    shutdown: watch::Receiver<bool>,
}

impl HttpServer {
    /// A server that ends when `shutdown` is true or closed.
    pub fn new(router: Router, metrics: Arc<Metrics>, shutdown: watch::Receiver<bool>) -> Self {
        let (places, lingering) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Lingering::new());
        Self { router, places, lingering, metrics, shutdown }
    }

    /// Serves one connection to its end; WebSockets go on in tasks of their own. A guest that has
    /// shown no token gives way when its place is needed.
    pub async fn serve_stream<S>(&self, stream: S, guest: Option<Guest>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (address, mut place) = guest.map(|guest| (guest.address, Arc::new(guest.place))).unzip();
        let acquired = tokio::select! {
            acquired = self.places.acquire() => acquired,
            () = gives_way(&place) => return,
        };
        let Ok(_acquired) = acquired else { return };
        let _open = self.metrics.connection();
        let peer = address.zip(place.as_ref().map(Arc::downgrade));
        let router = match peer {
            Some((address, place)) => {
                self.router.clone().layer(Extension(Peer { address, via: None, host: None, place }))
            }
            None => self.router.clone(),
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(MAX_HEAD_BYTES);
        // Whoever hangs up while a request is worked on does not end it halfway, done and not in the audit trail.
        http.half_close(true);
        let stream = TokioIo::new(self.lingering.stream(stream));
        let connection = http.serve_connection(stream, TowerToHyperService::new(router));
        let mut connection = std::pin::pin!(connection.with_upgrades());
        let mut shutdown = self.shutdown.clone();
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break Some(ended),
                _ = shutdown.wait_for(|stop| *stop) => break None,
                () = gives_way(&place) => return,
                () = shown(&place) => place = None,
            }
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(?address, %error, "a connection ended early");
        }
    }
}

/// Returns when a guest's place is needed; never for one who has none.
pub(super) async fn gives_way(place: &Option<Arc<Place>>) {
    match place {
        Some(place) => place.gives_way().await,
        None => std::future::pending().await,
    }
}

/// Returns when a guest has shown a token; never for one who has no place.
async fn shown(place: &Option<Arc<Place>>) {
    match place {
        Some(place) => place.shown().await,
        None => std::future::pending().await,
    }
}

/// Binds the Unix socket with mode 0660 and, where the machine has it, this group, which may then
/// pass through a state folder that is otherwise private.
///
/// A socket that nobody answers at is a leftover and is replaced. The state folder's lock is what
/// keeps two daemons from doing this at once.
///
/// # Errors
/// [`ServeError`].
pub async fn bind_unix(path: &Path, group: &str) -> Result<UnixListener, ServeError> {
    let fail = |action| move |source| ServeError::Io { action, path: path.to_path_buf(), source };
    let bytes = path.as_os_str().len();
    if bytes > MAX_SOCKET_PATH_BYTES {
        return Err(ServeError::PathTooLong { path: path.to_path_buf(), bytes });
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail("look at")(error)),
        Ok(about) if !about.file_type().is_socket() => {
            return Err(ServeError::NotASocket { path: path.to_path_buf() });
        }
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(fail("remove the leftover of"))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail("ask who answers at")(error)),
            Ok(_) => return Err(ServeError::InUse { path: path.to_path_buf() }),
        },
    }
    let listener = UnixListener::bind(path).map_err(fail("bind"))?;
    // The group first: between the two calls the socket is never open to a group it is not for.
    if let Some(gid) = group_id(&fs::read_to_string("/etc/group").unwrap_or_default(), group)
        && let Err(error) = chown(path, None, Some(gid)).and_then(|()| let_through(path, gid))
    {
        tracing::warn!(path = %path.display(), group, %error, "the API socket cannot be given to its group: only its user can open it");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(fail("set the mode of"))?;
    Ok(listener)
}

/// Lets the group pass through a folder that was for its user alone, or for the group that was set
/// before, to names that it knows: the files beside the socket keep their own modes.
fn let_through(socket: &Path, gid: u32) -> io::Result<()> {
    let Some(folder) = socket.parent() else { return Ok(()) };
    if is_private(fs::metadata(folder)?.permissions().mode()) {
        chown(folder, None, Some(gid))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o710))?;
    }
    Ok(())
}

/// Whether a folder has the mode that it was made with, or the one that [`let_through`] gives it;
/// any other is its owner's choice.
fn is_private(mode: u32) -> bool {
    matches!(mode & 0o777, 0o700 | 0o710)
}

/// Accepts until the server's shutdown.
pub async fn accept_unix(listener: UnixListener, server: &HttpServer) {
    let mut shutdown = server.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let mut server = server.clone();
                // The kernel says who that is; where it does not, the socket's mode has let somebody in.
                if let Ok(peer) = stream.peer_cred() {
                    server.router = server.router.layer(Extension(Uid(peer.uid())));
                }
                tokio::spawn(async move { server.serve_stream(stream, None).await });
            }
            Err(error) => {
                // Out of file descriptors, most likely: waiting is all that helps.
                tracing::debug!(%error, "cannot accept on the API socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The number of a group, from text in the form of group(5).
fn group_id(groups: &str, name: &str) -> Option<u32> {
    let mut entries = groups.lines().map(|line| line.split(':'));
    entries.find_map(|mut entry| (entry.next()? == name).then(|| entry.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::api::fake::TestFolder;

    #[test]
    fn groups_are_found_by_name() {
        let text = "root:x:0:\nhearthling:x:7:\nhearth:x:998:pi,me\nbroken\n";
        assert_eq!(group_id(text, "hearth"), Some(998));
        assert_eq!(group_id(text, "nobody"), None);
        assert_eq!(group_id("hearth:x:many:", "hearth"), None);
    }

    #[test]
    fn a_folder_is_let_through_again_when_the_group_changes() {
        let folder = TestFolder::new();
        let socket = folder.path().join("hearth.sock");
        let about = || fs::metadata(folder.path()).unwrap();
        let (mode, own) = (|| about().permissions().mode() & 0o777, about().gid());
        // Only root may give it to a group that it is not in.
        let other = if rustix::process::geteuid().is_root() { own + 1 } else { own };
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        for gid in [own, other] {
            let_through(&socket, gid).unwrap();
            assert_eq!((mode(), about().gid()), (0o710, gid));
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let_through(&socket, own).unwrap();
        assert_eq!((mode(), about().gid()), (0o750, other), "its owner's choice");
        assert!(is_private(0o40_710) && !is_private(0o40_755));
    }

    #[tokio::test]
    async fn a_leftover_is_replaced_and_a_living_daemon_is_not() {
        let folder = TestFolder::new();
        let path = folder.path().join("hearth.sock");
        let first = bind_unix(&path, "hearth").await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(bind_unix(&path, "hearth").await, Err(ServeError::InUse { .. })));
        drop(first);
        assert!(path.exists(), "a killed daemon leaves its socket");
        bind_unix(&path, "hearth").await.unwrap();
    }

    #[tokio::test]
    async fn what_is_in_the_way_or_too_long_is_named_and_left_alone() {
        let folder = TestFolder::new();
        let path = folder.path().join("hearth.sock");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(bind_unix(&path, "hearth").await, Err(ServeError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let long = folder.path().join("x".repeat(108));
        let error = bind_unix(&long, "hearth").await.unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }
}
