//! What the rest of the node asks.

use mesh_proto::{
    Key, ObjectId,
    kinds::{Author, Durability, durability},
    mesh::{self, WriteError},
};
use tokio::sync::oneshot;

use super::{EVENTS_AT_ONCE, EventLoop, membership::IssueReply, status};
use crate::service::{ObjectView, Op, Request, ServiceError};

impl EventLoop {
    pub(super) fn requests(&mut self, first: Request) {
        self.request(first);
        for _ in 1..EVENTS_AT_ONCE {
            let Ok(request) = self.requests.try_recv() else { break };
            self.request(request);
        }
    }

    /// An asker that is gone no longer needs its answer, so failed replies are let go.
    fn request(&mut self, request: Request) {
        match request {
            Request::Get(id, reply) => {
                let _ = reply.send(self.mesh.object(&id).map(status::object_view));
            }
            Request::List { prefix, after, limit, incomplete, reply } => {
                let _ = reply.send(self.list(&prefix, after.as_ref(), limit, incomplete));
            }
            Request::Write(author, ops, reply) => self.write(author, ops, reply),
            Request::Watch(prefixes, resume, reply) => {
                let watching = self.watchers.watch(prefixes, resume, &self.mesh);
                let _ = reply.send(watching);
            }
            Request::NextChanges(watcher, reply) => self.watchers.next(watcher, reply, &self.mesh),
            Request::Unwatch(watcher) => self.watchers.unwatch(watcher),
            Request::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Request::Issue(body, reply) => self.issue(body, IssueReply::Proof(reply)),
            Request::Remove(node, reply) => {
                let body = self.mesh.roster().removal_of(node);
                self.issue(body, IssueReply::Removed(reply));
            }
            Request::Time(reply) => {
                let _ = reply.send(status::time(&self.mesh, self.clock.now()));
            }
            Request::SetTime(ms, reply) => {
                let _ = reply.send(self.mesh.set_time(self.clock.now(), ms));
            }
            Request::Health(reply) => {
                let _ = reply.send(self.health());
            }
        }
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectId>,
        limit: usize,
        incomplete: bool,
    ) -> Vec<ObjectView> {
        let start = after.cloned().or_else(|| first_with(prefix));
        self.mesh
            .names_from(start.as_ref())
            .skip_while(|id| !id.as_str().starts_with(prefix) && id.as_str() < prefix)
            .take_while(|id| id.as_str().starts_with(prefix))
            .filter(|id| Some(*id) != after)
            .filter_map(|id| self.mesh.object(id))
            .filter(|object| incomplete || object.complete)
            .take(limit.clamp(1, 1000))
            .map(status::object_view)
            .collect()
    }

    fn write(&mut self, author: Author, ops: Vec<Op>, reply: oneshot::Sender<Result<(), ServiceError>>) {
        let ops: Vec<mesh::Op> = ops.into_iter().map(mesh_op).collect();
        if let Some(outside) = self.refuses(author == Author::Client, &ops) {
            let _ = reply.send(Err(ServiceError::Outside(outside)));
            return;
        }
        // What needs no disk to be acknowledged goes on: a full card leaves the lights to be switched.
        if let Some(reason) = &self.store_error
            && ops.iter().any(needs_the_store)
        {
            let _ = reply.send(Err(ServiceError::Store(reason.clone())));
            return;
        }
        match self.mesh.write(self.clock.now(), author, ops) {
            Ok(token) => {
                self.writes.insert(token, reply);
            }
            Err(error) => {
                let _ = reply.send(Err(write_error(error)));
            }
        }
    }
}

/// The least object name that can start with the prefix, so that listing starts near it.
fn first_with(prefix: &str) -> Option<ObjectId> {
    let (kind, name) = prefix.split_once('/')?;
    ObjectId::new(&format!("{kind}/{}", if name.is_empty() { "-" } else { name })).ok()
}

fn mesh_op(op: Op) -> mesh::Op {
    match op {
        Op::Set(object, field, value) => mesh::Op::Set(Key { object, field }, value),
        Op::Unset(object, field) => mesh::Op::Unset(Key { object, field }),
        Op::Delete(object) => mesh::Op::Delete(object),
    }
}

/// Whether the change is acknowledged only when it is durable.
fn needs_the_store(op: &mesh::Op) -> bool {
    match op {
        mesh::Op::Set(key, _) | mesh::Op::Unset(key) => durability(key) == Durability::Config,
        mesh::Op::Delete(_) => true,
    }
}

fn write_error(error: WriteError) -> ServiceError {
    match error {
        WriteError::Forbidden(object, field) => ServiceError::Forbidden(format!("{object}.{field}")),
        WriteError::Value(object, field, reason) => {
            ServiceError::Value { field: format!("{object}.{field}"), reason }
        }
        WriteError::TooMany(count) => ServiceError::TooManyOps(count),
        WriteError::Overloaded => ServiceError::Overloaded,
    }
}
