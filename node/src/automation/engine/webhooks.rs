//! The paths of the automations: making one, taking it away, and telling who admits callers which there are.

use std::{collections::BTreeMap, sync::Arc};

use mesh_proto::FieldName;
use tokio::sync::oneshot;

use super::{
    super::{
        program::Trigger,
        webhooks::{self, Hook},
    },
    Engine,
    entry::Spec,
    requests::invalid,
};
use crate::{
    api::ports::{PortError, Reply},
    auth::Secret,
    service::Op,
};

impl Engine {
    /// Makes a fresh path; the one before is void.
    pub(super) fn make_webhook(&mut self, name: &str, reply: Reply<Secret>) {
        let (token, op) = match self.fresh_webhook(name) {
            Ok(fresh) => fresh,
            Err(refused) => return drop(reply.send(Err(refused))), // whoever asked may be gone
        };
        let (written, is_written) = oneshot::channel();
        self.write_for(Ok(vec![op]), written);
        tokio::spawn(async move {
            let is_written = is_written.await.unwrap_or(Err(PortError::Stopping));
            drop(reply.send(is_written.map(|()| token)));
        });
    }

    fn fresh_webhook(&self, name: &str) -> Result<(Secret, Op), PortError> {
        let entry = self.entry(name)?;
        let program = entry.spec.program.as_ref().map_err(|fault| invalid(fault))?;
        if !program.triggers.contains(&Trigger::Webhook) {
            return Err(PortError::Invalid {
                detail: format!("a webhook does not start `{name}`"),
                fix: "add {\"webhook\": true} to its triggers first".to_owned(),
            });
        }
        let no_randomness = || PortError::Failed {
            detail: "the system has no randomness for a path".to_owned(),
            fix: "try again when the system has started fully".to_owned(),
        };
        let (token, hash) = webhooks::fresh().ok_or_else(no_randomness)?;
        let field = field().ok_or_else(no_randomness)?;
        Ok((token, Op::Set(entry.object.clone(), field, hash)))
    }

    /// The write that takes a path away.
    pub(super) fn revoke_ops(&self, name: &str) -> Result<Vec<Op>, PortError> {
        let entry = self.entry(name)?;
        if entry.spec.webhook.is_none() {
            return Err(PortError::NotFound(format!("path of automation `{name}`")));
        }
        Ok(field().map(|field| Op::Unset(entry.object.clone(), field)).into_iter().collect())
    }

    /// Tells which paths there are.
    pub(super) fn show_webhooks(&self) {
        let hook = |(name, spec): (&String, &Spec)| {
            Some((spec.webhook?, Hook { automation: name.clone(), is_open: spec.takes_webhook() }))
        };
        let followed = self.automations.iter().filter(|(_, entry)| !entry.is_beyond);
        let specs = followed.map(|(name, entry)| (name, &entry.spec));
        let hooks: BTreeMap<_, _> = specs.filter_map(hook).collect();
        self.webhooks.send_if_modified(|known| {
            let is_news = known.as_deref() != Some(&hooks);
            if is_news {
                *known = Some(Arc::new(hooks));
            }
            is_news
        });
    }
}

impl Spec {
    fn takes_webhook(&self) -> bool {
        self.active().is_some_and(|program| program.triggers.contains(&Trigger::Webhook))
    }

    /// Whether nothing can call it, though that is to start it.
    pub(super) fn lacks_path(&self) -> bool {
        self.webhook.is_none() && self.takes_webhook()
    }
}

fn field() -> Option<FieldName> {
    FieldName::new("webhook").ok()
}
