#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod access;
mod commands;
mod guards;
mod health;
mod household;
mod objects;
mod observers;
mod openapi;
mod people;
mod scenes;
mod scopes;
mod transport;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use mesh_proto::Value as Stored;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::{
    Access, ApiContext, ListenInfo,
    fake::{FakeLoop, TestFolder},
    guards::{Guards, Hosts, Origins, Pace},
    metrics::{Kind, Metrics, Sample},
    ports::{
        Check, CheckStatus, Command, CommandRequest, CommandState, CommandsHandle, CommandsPort,
        CommandsRequest, ControlHandle, ControlRequest, Invite, InviteView, InvitesHandle, InvitesRequest,
        Joined, PortError,
        adapters::{AdaptersHandle, AdaptersRequest},
        automations::AutomationsHandle,
        events::EventsHandle,
        history::HistoryHandle,
        schedules::SchedulesHandle,
    },
    router,
};
use crate::{
    audit::Audit,
    auth::{
        Secret,
        jwt::{Issuers, IssuersHandle, IssuersParts},
        setup::{Setup, SetupHandle},
        tokens::{Role, Tokens, TokensHandle},
    },
    automation::webhooks::Webhooks,
    service::{HouseholdTime, Service},
    tls::acme::report::Report,
};

/// The API with an owner in memory behind every port.
struct Bench {
    context: Arc<ApiContext>,
    fake: FakeLoop,
    setup: SetupHandle,
    tokens: TokensHandle,
    stop: watch::Sender<bool>,
    stalled: watch::Sender<Vec<&'static str>>,
    folder: TestFolder,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The last part of the problem's type, after a look at the whole document.
    fn problem(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        for text in ["title", "detail", "fix"] {
            assert!(!json[text].as_str().unwrap().is_empty(), "{text} in {json}");
        }
        json["type"].as_str().unwrap().strip_prefix("urn:hearth:problem:").unwrap().to_owned()
    }
}

/// Their owner, by a clock that is right.
fn no_issuers(fake: &FakeLoop, folder: &TestFolder) -> IssuersHandle {
    let time = watch::channel(HouseholdTime { ahead_ms: 0, trusted: true }).1;
    let parts = IssuersParts { service: fake.service(), time, folder: folder.path().join("issuers") };
    let (handle, owner) = Issuers::new(parts);
    tokio::spawn(owner.run());
    handle
}

impl Bench {
    fn new() -> Self {
        Self::over(FakeLoop::start())
    }

    fn over(fake: FakeLoop) -> Self {
        let folder = TestFolder::new();
        let (tokens, task) = Tokens::new(fake.service());
        tokio::spawn(task.run());
        let issuers = no_issuers(&fake, &folder);
        let people = crate::auth::people::tests::people(&fake, &folder);
        let (setup, task) = Setup::open(folder.path(), tokens.clone(), people.clone()).unwrap();
        tokio::spawn(task.run());
        let (commands, port) = CommandsHandle::channel();
        tokio::spawn(own_commands(port));
        let (invites, port) = InvitesHandle::channel();
        tokio::spawn(own_invites(port));
        let (control, port) = ControlHandle::channel();
        tokio::spawn(own_control(port));
        let (stop, shutdown) = watch::channel(false);
        let (stalled, stalled_now) = watch::channel(Vec::new());
        let certified = Report { served: vec!["attic.example.org".into()], ..Report::default() };
        let api = vec!["https://attic.local:7433".into()];
        let at = ListenInfo { listen: "[::]:7433".into(), api, public_port: 443 };
        let context = ApiContext {
            service: fake.service(),
            tokens: tokens.clone(),
            people,
            issuers: issuers.clone(),
            setup: setup.clone(),
            invites,
            commands,
            adapters: AdaptersHandle::channel().0,
            history: HistoryHandle::channel().0,
            automations: AutomationsHandle::channel().0,
            events: EventsHandle::channel().0,
            webhooks: Webhooks::new(watch::channel(None).1).0,
            schedules: SchedulesHandle::channel().0,
            control,
            ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            guards: guards(),
            audit: Audit::spawn(folder.path(), || 1_000).unwrap().0,
            certificate: watch::channel(certified).1,
            listen: watch::channel(at).1,
            metrics: Arc::new(Metrics::default()),
            metrics_sources: vec![Arc::new(|| {
                let help = "Links open.";
                vec![Sample { name: "hearth_links", label: None, help, kind: Kind::Gauge, value: 2.0 }]
            })],
            stalled: stalled_now,
            shutdown,
        };
        Self { context: Arc::new(context), fake, setup, tokens, stop, stalled, folder }
    }

    /// The same with this event loop, and with nobody behind the other ports.
    fn deserted(self, service: Service) -> Self {
        let context = ApiContext {
            service,
            tokens: self.tokens.clone(),
            people: self.context.people.clone(),
            issuers: self.context.issuers.clone(),
            setup: self.setup.clone(),
            invites: InvitesHandle::channel().0,
            commands: CommandsHandle::channel().0,
            adapters: AdaptersHandle::channel().0,
            history: HistoryHandle::channel().0,
            automations: AutomationsHandle::channel().0,
            events: EventsHandle::channel().0,
            webhooks: Webhooks::new(watch::channel(None).1).0,
            schedules: SchedulesHandle::channel().0,
            control: ControlHandle::channel().0,
            ca_pem: String::new(),
            guards: guards(),
            audit: self.context.audit.clone(),
            certificate: self.context.certificate.clone(),
            listen: self.context.listen.clone(),
            metrics: Arc::new(Metrics::default()),
            metrics_sources: Vec::new(),
            stalled: self.context.stalled.clone(),
            shutdown: self.context.shutdown.clone(),
        };
        Self { context: Arc::new(context), ..self }
    }

    fn router(&self, access: Access) -> Router {
        router(&self.context, access)
    }

    async fn token(&self, role: Role) -> String {
        self.tokens.create(role, String::new()).await.unwrap().1.expose().to_owned()
    }

    /// A request over the Unix socket's router.
    async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(Access::Socket, method, path, None, "application/json", body).await
    }

    /// A request with a token.
    async fn bearer(&self, token: Option<&str>, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(Access::Bearer, method, path, token, "application/json", body).await
    }

    async fn send(
        &self,
        access: Access,
        method: Method,
        path: &str,
        token: Option<&str>,
        media: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        let mut request = request.header(header::CONTENT_TYPE, media);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = self.router(access).oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answer { status, headers, body }
    }

    /// A light with a range of whites and, if asked for, colours.
    async fn light(&self, name: &str, friendly: &str, label: &str, color: bool) {
        let id = format!("device/{name}");
        let map = |items: Vec<(&str, Stored)>| -> Stored {
            Stored::Map(items.into_iter().map(|(name, value)| (name.into(), value)).collect())
        };
        let range = map(vec![("min_k", Stored::Int(2700)), ("max_k", Stored::Int(6500))]);
        let color = if color { map(vec![("red", Stored::Null)]) } else { Stored::Null };
        let can = vec![
            ("kind", Stored::from("light")),
            ("brightness", Stored::from(true)),
            ("color_temperature", range),
            ("color", color),
        ];
        self.fake.put(&id, "adapter", Stored::from("lifx")).await;
        self.fake.put(&id, "capabilities", map(can)).await;
        self.fake.put(&id, "label", Stored::from(label)).await;
        if !friendly.is_empty() {
            self.fake.put(&id, "name", Stored::from(friendly)).await;
        }
    }
}

/// They know `localhost` and `attic.local`, believe 10.0.0.2, and let pages of `https://panel.example` in.
fn guards() -> Guards {
    let (pace, pacer) = Pace::channel();
    tokio::spawn(pacer.run());
    Guards {
        hosts: Hosts::new(&[], "attic", "attic", Box::new(|name| name == "home.example.org")),
        origins: Origins::new(&["https://panel.example".to_owned()]),
        proxies: vec!["10.0.0.2".parse().unwrap()],
        pace,
        is_public: Box::new(|name| name == "home.example.org"),
    }
}

/// Confirms every command at once, except those to `device/stuck`.
async fn own_commands(mut port: CommandsPort) {
    let mut commands: BTreeMap<String, (CommandRequest, Command)> = BTreeMap::new();
    while let Some(request) = port.requests.recv().await {
        match request {
            CommandsRequest::Get(id, reply) => {
                drop(reply.send(Ok(commands.get(&id).map(|(_, command)| command.clone()))));
            }
            CommandsRequest::Submit(request, reply) => {
                let known = commands.values().find(|(old, _)| old.key.is_some() && old.key == request.key);
                if let Some((old, command)) = known {
                    let conflict =
                        PortError::Conflict { detail: "used before".into(), fix: "another key".into() };
                    let same = old.device == request.device && old.change == request.change;
                    drop(reply.send(if same { Ok(command.clone()) } else { Err(conflict) }));
                    continue;
                }
                let mut command = Command {
                    id: format!("{:032x}", commands.len() + 1),
                    device: request.device.clone(),
                    by: Some(request.by.who.clone()),
                    state: CommandState::Accepted,
                    at_ms: 1_000,
                    deadline_ms: 1_000 + u64::from(request.deadline_ms),
                    reason: None,
                    life: vec![(CommandState::Accepted, 1_000)],
                };
                drop(reply.send(Ok(command.clone())));
                let later = [CommandState::Sent, CommandState::Acknowledged, CommandState::Confirmed];
                for (n, state) in later.into_iter().enumerate().filter(|_| request.device.name() != "stuck") {
                    command.state = state;
                    command.at_ms = 1_001 + n as u64;
                    command.life.push((state, command.at_ms));
                    drop(port.life.send(command.clone()));
                }
                commands.insert(command.id.clone(), (request, command));
            }
        }
    }
}

async fn own_invites(mut port: tokio::sync::mpsc::Receiver<InvitesRequest>) {
    let mut invites: Vec<InviteView> = Vec::new();
    while let Some(request) = port.recv().await {
        match request {
            InvitesRequest::Create { ttl_s, roles, reply } => {
                let id = format!("inv{}", invites.len());
                let expires_ms = u64::from(ttl_s) * 1_000;
                invites.push(InviteView { id: id.clone(), roles, expires_ms, used: false });
                drop(reply.send(Ok(Invite { id, token: Secret::new("hearth-secret-invite"), expires_ms })));
            }
            InvitesRequest::List(reply) => drop(reply.send(Ok(invites.clone()))),
            InvitesRequest::Revoke(id, reply) => {
                let before = invites.len();
                invites.retain(|invite| invite.id != id);
                let missing = Err(PortError::NotFound("such invite".into()));
                drop(reply.send(if invites.len() < before { Ok(()) } else { missing }));
            }
        }
    }
}

async fn own_control(mut port: tokio::sync::mpsc::Receiver<ControlRequest>) {
    while let Some(request) = port.recv().await {
        match request {
            ControlRequest::Join { token, force, reply } => {
                let fix = "repeat it with --force".to_owned();
                let conflict = PortError::Conflict { detail: "this node holds 3 objects".into(), fix };
                let joined = Joined { household: token.expose().into(), node: "n".into() };
                drop(reply.send(if force { Ok(joined) } else { Err(conflict) }));
            }
            ControlRequest::Leave { reply, .. } => drop(reply.send(Ok(()))),
            ControlRequest::Backup { reply, .. } => {
                let fix = "free some space".into();
                drop(reply.send(Err(PortError::Storage { detail: "the disk is full".into(), fix })));
            }
            ControlRequest::Doctor(reply) => {
                let (name, detail) = ("clock".into(), "not synchronised".into());
                let fix = Some("install an NTP client".into());
                drop(reply.send(Ok(vec![Check { name, status: CheckStatus::Warn, detail, fix }])));
            }
        }
    }
}
