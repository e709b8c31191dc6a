//! What the rest of the node asks.

use mesh_proto::{
    Key, ObjectId,
    kinds::Author,
    mesh::{self, WriteError},
    roster::{Body, RosterError},
};
use tokio::sync::oneshot;

use super::{EVENTS_AT_ONCE, EventLoop, status};
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
            Request::Issue(body, reply) => {
                let _ = reply.send(self.issue(body));
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
        if let Some(reason) = &self.store_error {
            let _ = reply.send(Err(ServiceError::Store(reason.clone())));
            return;
        }
        let ops = ops.into_iter().map(mesh_op).collect();
        match self.mesh.write(self.clock.now(), author, ops) {
            Ok(token) => {
                self.writes.insert(token, reply);
            }
            Err(error) => {
                let _ = reply.send(Err(write_error(error)));
            }
        }
    }

    fn issue(&mut self, body: Body) -> Result<Vec<Vec<u8>>, ServiceError> {
        if let Body::Admit { node, token: Some(token), .. } = &body
            && self.mesh.roster().redeemed(token).is_some()
            && self.mesh.roster().is_admitted(node)
        {
            // A retry, perhaps after a power cut in between, gets the same statements.
            return Ok(self.mesh.roster().proof_for(node));
        }
        let subject = match &body {
            Body::Admit { node, .. } | Body::Revoke { node, .. } => *node,
            Body::Leave => self.mesh.id(),
        };
        let refused = |error: RosterError| ServiceError::Roster(error.to_string());
        let statement = self.mesh.sign(body).map_err(refused)?;
        // Durable before it counts or anybody hears of it: a node that forgets what it signed would fork its chain.
        let bytes = self.mesh.roster().to_bytes_with(&statement);
        self.save_roster(bytes).map_err(|error| ServiceError::Store(error.to_string()))?;
        self.mesh.publish(self.clock.now(), &statement).map_err(refused)?;
        Ok(self.mesh.roster().proof_for(&subject))
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

fn write_error(error: WriteError) -> ServiceError {
    match error {
        WriteError::Forbidden(object, field) => ServiceError::Forbidden(format!("{object}.{field}")),
        WriteError::Value(object, field, reason) => {
            ServiceError::Value { field: format!("{object}.{field}"), reason: reason.to_string() }
        }
        WriteError::TooMany(count) => ServiceError::TooManyOps(count),
        WriteError::Overloaded => ServiceError::Overloaded,
    }
}
