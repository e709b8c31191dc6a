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
use mesh_proto::{
    FieldName, Key, ObjectId, ShortId,
    kinds::{Author, may_author},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    extract::{Params, has_media_type},
    json::from_object,
    problem::Problem,
};
use crate::{
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

/// What is not of this home but of this moment, or secret, or sealed for its nodes: a backup holds the settings of adapters.
fn is_portable(kind: &str) -> bool {
    !matches!(kind, "token" | "command" | "adapter")
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
    for object in objects.iter().filter(|object| is_portable(object.id.kind())) {
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
) -> Result<Json<Value>, Problem> {
    if !has_media_type(request.headers(), NDJSON) {
        return Err(Problem::media_type(NDJSON));
    }
    let service = (!params.dry_run).then(|| context.service.clone());
    let mut import = Import { service, ..Import::default() };
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
    line: Vec<u8>,
    number: usize,
    /// Objects and changes that wait to be written.
    batch: Vec<(ObjectId, Vec<Op>)>,
    waiting: usize,
    written: usize,
    refused: Vec<Value>,
    refused_count: usize,
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
        match read_line(&line) {
            Ok((id, ops, reported)) => {
                // Every export holds such fields; the nodes of this home report their own.
                self.skipped += reported;
                if !ops.is_empty() {
                    self.waiting += ops.len();
                    self.batch.push((id, ops));
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
        let together: Vec<Op> = batch.iter().flat_map(|(_, ops)| ops.iter().cloned()).collect();
        if !together.is_empty() && patient(&service, together).await.is_ok() {
            self.written += batch.len();
            return Ok(());
        }
        for (id, ops) in batch {
            match patient(&service, ops).await {
                Ok(()) => self.written += 1,
                Err(error @ (ServiceError::Stopping | ServiceError::Store(_))) => return Err(error.into()),
                Err(error) => self.refuse(Some(&id), &error.to_string()),
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Json<Value>, Problem> {
        self.end_line().await?;
        self.write().await?;
        let more = self.refused_count - self.refused.len();
        Ok(Json(
            json!({ "written": self.written, "refused": self.refused, "refused_more": more, "skipped": self.skipped }),
        ))
    }
}

/// Waits while too much waits to be flushed: an import is in no hurry.
async fn patient(service: &Service, ops: Vec<Op>) -> Result<(), ServiceError> {
    for _ in 0..100 {
        match service.write(Author::Client, ops.clone()).await {
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
    fields: BTreeMap<String, Value>,
    #[serde(default, rename = "meta")]
    _meta: serde::de::IgnoredAny,
    #[serde(default, rename = "complete")]
    _complete: serde::de::IgnoredAny,
}

/// The object of a line, its changes, and how many fields only nodes may write.
fn read_line(line: &[u8]) -> Result<(ObjectId, Vec<Op>, usize), String> {
    let line: Line = json::parse(line).map_err(|error| match error {
        JsonError::Shape(_) => format!("{}: {error}", JsonError::NotAnObject),
        other => other.to_string(),
    })?;
    let id = ObjectId::new(&line.id).map_err(|error| error.to_string())?;
    if !is_portable(id.kind()) {
        return Err(format!("objects of the kind {} are not imported", id.kind()));
    }
    let (mut ops, mut reported) = (Vec::new(), 0);
    for (name, value) in line.fields {
        let field = FieldName::new(&name).map_err(|error| error.to_string())?;
        let key = Key { object: id.clone(), field };
        // Clients write no field that depends on the node, so any node will do for the question.
        if !may_author(&key, Author::Client, ShortId(0)) {
            reported += 1;
            continue;
        }
        let value = to_value(value).map_err(|error| format!("{name}: {error}"))?;
        value.encode().map_err(|error| format!("{name}: {error}"))?;
        ops.push(Op::Set(key.object, key.field, value));
    }
    Ok((id, ops, reported))
}
