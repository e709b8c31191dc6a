//! Changes of users, and ends of sessions.
//!
//! What takes something away counts here before it is written, and counts on where it cannot be: a full disk keeps nobody in. It is
//! then owed, and written as soon as that is possible; the error is told all the same, for a restart before that would forget it.
//! What gives something is written first.

use std::collections::BTreeMap;

use mesh_proto::{FieldName, ObjectId, kinds::Author};
use tracing::{info, warn};

use super::{NewUser, People, owner::BATCH, shown::view};
use crate::{
    auth::{
        passwords::PasswordHash,
        sessions,
        tokens::Role,
        users::{self, Account, Credential, MAX_USERS, User, UserChange, UserError, UserView},
    },
    service::{Op, ServiceError},
};

impl People {
    pub(super) async fn sign_out(&mut self, id: &str, of: Option<&str>) -> Result<(), UserError> {
        let object = sessions::object(id).ok_or(UserError::NoSession)?;
        let known = self.sessions.get(id).filter(|session| of.is_none_or(|user| session.user == user));
        if known.is_none() && !self.owed.contains_key(&object) {
            return Err(UserError::NoSession);
        }
        self.sessions.remove(id);
        self.publish();
        self.owe(&object, vec![Op::Delete(object.clone())]);
        Ok(self.settle().await?)
    }

    pub(super) async fn sign_out_everywhere(&mut self, name: &str) -> Result<(), UserError> {
        let mut user = self.users.get(name).cloned().ok_or(UserError::NotFound)?;
        let mut ops = user.sign_out(name)?;
        ops.extend(self.deletions(name));
        info!(user = %name, "a person is signed out everywhere");
        self.take_away(name, Some(user), ops).await
    }

    pub(super) fn may_create(&self, name: &str) -> Result<(), UserError> {
        match () {
            () if self.users.contains_key(name) => Err(UserError::Taken),
            () if self.users.len() >= MAX_USERS => Err(UserError::TooMany),
            () => Ok(()),
        }
    }

    pub(super) async fn create(&mut self, new: NewUser, hash: PasswordHash) -> Result<UserView, UserError> {
        self.may_create(&new.name)?;
        let account = Account::new(new.role, new.scope, self.clock.now_ms())?;
        let credential = Credential::new(&account, hash)?;
        let user = User::new(account, credential)?;
        self.settle().await?;
        self.write(user.ops(&new.name)).await?;
        info!(user = %new.name, role = %new.role, "a user was made");
        self.put(&new.name, Some(user.clone()));
        Ok(view(&new.name, &user, 0))
    }

    pub(super) async fn change(
        &mut self,
        name: &str,
        change: UserChange,
        password: Option<PasswordHash>,
        force: bool,
    ) -> Result<UserView, UserError> {
        let before = self.users.get(name).cloned().ok_or(UserError::NotFound)?;
        let (mut user, mut ops) = (before.clone(), Vec::new());
        if change != UserChange::default() {
            user.account = user.account.changed(change)?;
            users::check_grant(user.account.role, &user.account.scope)?;
            ops = user.account_ops(name);
        }
        let takes_away = password.is_some() || is_less(&user.account, &before.account);
        if let Some(hash) = password {
            ops.extend(user.set_password(name, hash)?);
        }
        self.leave_an_admin(name, Some(&user), force)?;
        if ops.is_empty() {
            return Ok(view(name, &user, 0));
        }
        ops.extend(self.deletions(name));
        if takes_away {
            self.take_away(name, Some(user.clone()), ops).await?;
        } else {
            self.settle().await?;
            self.write(ops).await?;
            self.put(name, Some(user.clone()));
        }
        info!(user = %name, role = %user.account.role, enabled = user.account.enabled, "a user was changed");
        Ok(view(name, &user, 0))
    }

    pub(super) async fn remove(&mut self, name: &str, force: bool) -> Result<(), UserError> {
        let known = self.users.contains_key(name);
        let object = users::object(name).ok_or(UserError::NotFound)?;
        if !known {
            // One that is removed here already, if not on the disk.
            let is_owed = self.owed.contains_key(&object);
            return if is_owed { Ok(self.settle().await?) } else { Err(UserError::NotFound) };
        }
        self.leave_an_admin(name, None, force)?;
        let mut ops = vec![Op::Delete(object)];
        ops.extend(self.deletions(name));
        info!(user = %name, "a user was removed");
        self.take_away(name, None, ops).await
    }

    /// Refuses to make of the last admin who can sign in one that cannot, or no admin. Two nodes that are apart may
    /// each do it to another: the way back is the socket of a board.
    fn leave_an_admin(&self, name: &str, after: Option<&User>, force: bool) -> Result<(), UserError> {
        let is_admin = |user: &User| user.account.role == Role::Admin && user.can_sign_in();
        let was = self.users.get(name).is_some_and(is_admin);
        let others = || self.users.iter().any(|(other, user)| other != name && is_admin(user));
        if force || !was || after.is_some_and(is_admin) || others() {
            Ok(())
        } else {
            Err(UserError::LastAdmin)
        }
    }

    /// The deletions of the sessions of a user that this node knows.
    pub(super) fn deletions(&self, name: &str) -> Vec<Op> {
        let of_user = self.sessions.iter().filter(|(_, session)| session.user == name);
        of_user.filter_map(|(id, _)| sessions::object(id)).map(Op::Delete).take(BATCH).collect()
    }

    /// Takes in what a user is from now on, which ends its sessions.
    fn put(&mut self, name: &str, user: Option<User>) {
        match user {
            Some(user) => drop(self.users.insert(name.to_owned(), user)),
            None => drop(self.users.remove(name)),
        }
        let bases: BTreeMap<String, String> =
            self.bases().into_iter().map(|(name, basis)| (name.to_owned(), basis)).collect();
        self.sessions.retain(|_, s| s.user != name || bases.get(name).is_some_and(|basis| *basis == s.basis));
        self.publish();
    }

    /// Makes less of a user, or nothing: here at once, and on the disk when that can be written.
    async fn take_away(&mut self, name: &str, user: Option<User>, ops: Vec<Op>) -> Result<(), UserError> {
        let object = users::object(name).ok_or(UserError::NotFound)?;
        self.put(name, user);
        self.owe(&object, ops);
        Ok(self.settle().await?)
    }

    /// Of two writes of one place the later counts.
    fn owe(&mut self, object: &ObjectId, ops: Vec<Op>) {
        let owed = self.owed.entry(object.clone()).or_default();
        owed.retain(|old| !ops.iter().any(|new| place(new) == place(old)));
        owed.extend(ops);
    }

    /// Writes what is owed. Nothing else is written of a user before that: it would be undone.
    pub(super) async fn settle(&mut self) -> Result<(), ServiceError> {
        while !self.owed.is_empty() {
            let (mut objects, mut ops) = (Vec::new(), Vec::new());
            for (object, owed) in &self.owed {
                if !ops.is_empty() && ops.len() + owed.len() > BATCH {
                    break;
                }
                objects.push(object.clone());
                ops.extend(owed.iter().cloned());
            }
            if let Err(error) = self.write(ops).await {
                warn!(%error, "what was taken away from people counts here, and is not written yet");
                return Err(error);
            }
            for object in objects {
                self.owed.remove(&object);
            }
        }
        Ok(())
    }

    pub(super) async fn write(&self, ops: Vec<Op>) -> Result<(), ServiceError> {
        self.service.write(Author::Node, ops).await
    }
}

/// Whether somebody may do less than before, or elsewhere.
fn is_less(after: &Account, before: &Account) -> bool {
    !after.enabled || after.role < before.role || !before.scope.is_within(&after.scope)
}

fn place(op: &Op) -> (&ObjectId, Option<&FieldName>) {
    match op {
        Op::Set(object, field, _) | Op::Unset(object, field) => (object, Some(field)),
        Op::Delete(object) => (object, None),
    }
}
