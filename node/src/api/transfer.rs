//! Export and import: one object a line. Both stream, so that neither the home's size nor a
//! client's patience costs memory.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use mesh_proto::{
    FieldName, Key, ObjectId, ShortId, Value,
    kinds::{Author, may_author},
};
use serde::Deserialize;
use serde_json::{Value as Any, json};

use super::{
    ApiContext,
    extract::{Params, has_media_type},
    json::from_object,
    problem::Problem,
};
use crate::{
    automation::restore::restore,
    json::{self, JsonError, to_value},
    service::{Op, Service, ServiceError},
};

/// Objects that are read at once.
const PAGE: usize = 256;
/// Changes that are written at once; the event loop takes up to 1,024.
const BATCH: usize = 512;
/// Longest line, in bytes.
const MAX_LINE_BYTES: usize = 512 * 1024;
/// Longest import, in bytes.
const MAX_IMPORT_BYTES: usize = 256 * 1024 * 1024;
/// Refusals that are named one by one; the rest is counted.
const MAX_REFUSALS: usize = 1_000;
/// A client that sends nothing for so long has gone.
const IDLE: Duration = Duration::from_secs(30);

const NDJSON: &str = "application/x-ndjson";

/// Why objects of a kind are not exported, if so: they are of this moment, or secret, or sealed for the nodes of this home.
fn stays(kind: &str) -> Option<&'static str> {
    match kind {
        "token" => Some("API tokens are secret: make new ones with `hearth token create`"),
        "user" | "session" => {
            Some("people and their passwords stay with their home: make them anew with `hearth user add`")
        }
        "issuer" => Some("whom a home trusts is said anew in each: `hearth issuer add`"),
        "adapter" => Some(
            "settings of adapters are sealed for the nodes of their home: say them again with `hearth adapter set`, or restore a \
             backup (`hearth restore`)",
        ),
        "command" | "event" => Some("it was of its moment"),
        _ => None,
    }
}

pub(super) async fn export(State(context): State<Arc<ApiContext>>) -> Response {
    let pages = stream::unfold(Some(None), move |from| {
        let service = context.service.clone();
        async move {
            let after: Option<ObjectId> = from?;
            match page(&service, after).await {
                Ok((text, next)) => Some((Ok(text), next.map(Some))),
                // Breaking off is the only way left to say that the export is not whole.
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(pages)).into_response()
}

/// The lines of a page, and behind which object the next one starts.
async fn page(service: &Service, after: Option<ObjectId>) -> Result<(Bytes, Option<ObjectId>), ServiceError> {
    let objects = service.list("", after, PAGE, true).await?;
    let next = objects.last().filter(|_| objects.len() == PAGE).map(|object| object.id.clone());
    let mut text = String::new();
    for object in objects.iter().filter(|object| stays(object.id.kind()).is_none()) {
        text.push_str(&from_object(object).to_string());
        text.push('\n');
    }
    Ok((Bytes::from(text), next))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportParams {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn import(
    State(context): State<Arc<ApiContext>>,
    Params(params): Params<ImportParams>,
    request: Request,
) -> Result<Json<Any>, Problem> {
    if !has_media_type(request.headers(), NDJSON) {
        return Err(Problem::media_type(NDJSON));
    }
    let service = (!params.dry_run).then(|| context.service.clone());
    let now = i64::try_from(context.service.time().await?.ms).ok();
    let now = now.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    let mut import = Import { service, now, ..Import::default() };
    let (mut body, mut total) = (request.into_body().into_data_stream(), 0usize);
    loop {
        let chunk = tokio::time::timeout(IDLE, body.next()).await;
        let Some(chunk) = chunk.map_err(|_| Problem::deadline(IDLE.as_secs()))? else { break };
        let fix = "send the rest again: writing an object twice changes nothing";
        let chunk = chunk.map_err(|_| Problem::invalid("the body ended early", fix))?;
        total = total.saturating_add(chunk.len());
        if total > MAX_IMPORT_BYTES {
            return Err(Problem::too_large(MAX_IMPORT_BYTES));
        }
        import.feed(&chunk).await?;
    }
    import.finish().await
}

#[derive(Default)]
struct Import {
    /// None for a dry run.
    service: Option<Service>,
    /// The time of day: what is restored counts from now on.
    now: Timestamp,
    line: Vec<u8>,
    number: usize,
    /// What waits to be written.
    batch: Vec<Restored>,
    waiting: usize,
    written: usize,
    refused: Vec<Any>,
    refused_count: usize,
    /// Fields that only nodes write.
    skipped: usize,
}

/// An object to be written.
struct Restored {
    id: ObjectId,
    /// Whose rules it follows: what clients may not write themselves was checked in the place of its owner.
    author: Author,
    ops: Vec<Op>,
    /// Fields that only nodes write.
    skipped: usize,
}

impl Import {
    async fn feed(&mut self, chunk: &[u8]) -> Result<(), Problem> {
        let mut parts = chunk.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            if self.line.len() + part.len() > MAX_LINE_BYTES {
                self.write().await?;
                return Err(Problem::too_large(MAX_LINE_BYTES));
            }
            self.line.extend_from_slice(part);
            if parts.peek().is_some() {
                self.end_line().await?;
            }
        }
        Ok(())
    }

    async fn end_line(&mut self) -> Result<(), Problem> {
        let line = std::mem::take(&mut self.line);
        self.number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        match read_line(&line, self.now) {
            Ok(restored) => {
                // Every export holds such fields; the nodes of this home report their own.
                self.skipped += restored.skipped;
                if !restored.ops.is_empty() {
                    self.waiting += restored.ops.len();
                    self.batch.push(restored);
                }
            }
            Err(error) => self.refuse(None, &error),
        }
        if self.waiting >= BATCH { self.write().await } else { Ok(()) }
    }

    fn refuse(&mut self, id: Option<&ObjectId>, reason: &str) {
        self.refused_count += 1;
        if self.refused.len() < MAX_REFUSALS {
            let id = id.map(ObjectId::as_str);
            self.refused.push(json!({ "line": self.number, "id": id, "reason": reason }));
        }
    }

    /// Writes what waits: together, and if something in it is refused, object by object.
    async fn write(&mut self) -> Result<(), Problem> {
        let batch = std::mem::take(&mut self.batch);
        self.waiting = 0;
        let Some(service) = self.service.clone() else {
            self.written += batch.len();
            return Ok(());
        };
        let (clients, nodes) = batch.into_iter().partition(|restored| restored.author == Author::Client);
        self.write_all(&service, Author::Client, clients).await?;
        self.write_all(&service, Author::Node, nodes).await
    }

    async fn write_all(
        &mut self,
        service: &Service,
        author: Author,
        batch: Vec<Restored>,
    ) -> Result<(), Problem> {
        let together: Vec<Op> = batch.iter().flat_map(|restored| restored.ops.iter().cloned()).collect();
        if together.is_empty() {
            return Ok(());
        }
        if patient(service, author, together).await.is_ok() {
            self.written += batch.len();
            return Ok(());
        }
        for Restored { id, ops, .. } in batch {
            match patient(service, author, ops).await {
                Ok(()) => self.written += 1,
                Err(error @ (ServiceError::Stopping | ServiceError::Store(_))) => return Err(error.into()),
                Err(error) => self.refuse(Some(&id), &error.to_string()),
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Json<Any>, Problem> {
        self.end_line().await?;
        self.write().await?;
        let more = self.refused_count - self.refused.len();
        Ok(Json(
            json!({ "written": self.written, "refused": self.refused, "refused_more": more, "skipped": self.skipped }),
        ))
    }
}

/// Waits while too much waits to be flushed: an import is in no hurry.
async fn patient(service: &Service, author: Author, ops: Vec<Op>) -> Result<(), ServiceError> {
    for _ in 0..100 {
        match service.write(author, ops.clone()).await {
            Err(ServiceError::Overloaded) => tokio::time::sleep(Duration::from_millis(100)).await,
            other => return other,
        }
    }
    Err(ServiceError::Overloaded)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    fields: BTreeMap<String, Any>,
    #[serde(default, rename = "meta")]
    _meta: serde::de::IgnoredAny,
    #[serde(default, rename = "complete")]
    _complete: serde::de::IgnoredAny,
}

/// What a line brings back.
fn read_line(line: &[u8], now: Timestamp) -> Result<Restored, String> {
    let line: Line = json::parse(line).map_err(|error| match error {
        JsonError::Shape(_) => format!("{}: {error}", JsonError::NotAnObject),
        other => other.to_string(),
    })?;
    let id = ObjectId::new(&line.id).map_err(|error| error.to_string())?;
    if let Some(reason) = stays(id.kind()) {
        return Err(format!("objects of the kind {} are not imported: {reason}", id.kind()));
    }
    let mut values = BTreeMap::new();
    for (name, value) in line.fields {
        let field = FieldName::new(&name).map_err(|error| error.to_string())?;
        let value = to_value(value).map_err(|error| format!("{name}: {error}"))?;
        value.encode().map_err(|error| format!("{name}: {error}"))?;
        values.insert(field, value);
    }
    let (author, ops) = match restore(&id, &values, now) {
        Some(ops) => (Author::Node, ops?),
        None => (Author::Client, clients_ops(&id, &values)),
    };
    let writes = |name: &FieldName| ops.iter().any(|op| matches!(op, Op::Set(_, field, _) if field == name));
    let skipped = values.keys().filter(|name| !writes(name)).count();
    Ok(Restored { id, author, ops, skipped })
}

/// The fields that clients may write. They write none that depends on the node, so any node will do for the question.
fn clients_ops(id: &ObjectId, values: &BTreeMap<FieldName, Value>) -> Vec<Op> {
    let op = |(field, value): (&FieldName, &Value)| {
        let key = Key { object: id.clone(), field: field.clone() };
        let may = may_author(&key, Author::Client, ShortId(0));
        may.then(|| Op::Set(key.object, key.field, value.clone()))
    };
    values.iter().filter_map(op).collect()
}
