//! `get`, `put`, `delete`, `list`, `devices`.

use std::io::Read;

use hyper::Method;
use mesh_proto::{FieldName, ObjectId};
use serde_json::{Map, Value, json};

use super::args::{ListArgs, PutArgs};
use super::client::{garbled, segment};
use super::exit::{Exit, Failure};
use super::model::{Object, read, read_list};
use super::output::Done;
use super::table::Table;
use super::values::{Assignment, fields_from_json};
use super::{Session, show};

/// Objects asked for at once.
const PAGE: u64 = 500;
/// The largest body of the API, in bytes.
const MAX_BODY: u64 = 1024 * 1024;

impl Session {
    pub(super) async fn get(&self, id: &ObjectId, field: Option<&FieldName>) -> Done<Exit> {
        let answer = self.client.get(&path(id)).await?;
        let Some(field) = field else {
            let object: Object = read(&answer)?;
            self.out.either(&answer, || show::object(&object))?;
            return Ok(Exit::Ok);
        };
        let Some(value) = answer.get("fields").and_then(|fields| fields.get(field.as_str())) else {
            let detail = format!("{id} has no field `{field}`");
            return Err(Failure::new(
                Exit::NotFound,
                detail,
                format!("see its fields with: hearth get {id}"),
            )
            .into());
        };
        // Raw text, so that a script takes it as it is.
        self.out.either(value, || value.as_str().map_or_else(|| value.to_string(), str::to_owned))?;
        Ok(Exit::Ok)
    }

    pub(super) async fn put(&self, args: PutArgs) -> Done<Exit> {
        let mut set = Map::new();
        for assignment in args.fields {
            match assignment {
                Assignment::Field(name, value) => {
                    set.insert(name.as_str().to_owned(), value);
                }
                Assignment::Stdin => set.extend(stdin_fields()?),
            }
        }
        if let Some(both) = args.unset.iter().find(|name| set.contains_key(name.as_str())) {
            let detail = format!("`{both}` is both set and unset");
            return Err(Failure::new(Exit::Usage, detail, "give it once").into());
        }
        let unset: Vec<&str> = args.unset.iter().map(FieldName::as_str).collect();
        let body = json!({"set": set, "unset": unset});
        let answer = self.client.call(Method::PATCH, &path(&args.id), Some(&body)).await?;
        let object: Object = read(&answer)?;
        if self.out.json {
            self.out.document(&answer)?;
        } else if !self.out.quiet {
            self.out.line(show::object(&object))?;
        }
        Ok(Exit::Ok)
    }

    pub(super) async fn delete(&self, id: &ObjectId) -> Done<Exit> {
        self.client.call(Method::DELETE, &path(id), None).await?;
        self.done(json!({"id": id.as_str(), "deleted": true}), format!("{id} is deleted"))
    }

    pub(super) async fn list(&self, args: &ListArgs) -> Done<Exit> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let left =
                args.limit.map(|limit| limit.saturating_sub(u64::try_from(all.len()).unwrap_or(limit)));
            let size = left.unwrap_or(PAGE).min(PAGE);
            if size == 0 {
                break;
            }
            let mut page = format!("/api/v1/objects?prefix={}&limit={size}", segment(&args.prefix));
            if args.incomplete {
                page.push_str("&incomplete=true");
            }
            if let Some(after) = &after {
                page.push_str(&format!("&after={}", segment(after)));
            }
            let answer = self.client.get(&page).await?;
            let objects: Vec<Value> = read_list(&answer, "objects")?;
            all.extend(objects);
            let next = answer.get("next").and_then(Value::as_str).map(str::to_owned);
            if next.is_some() && next == after {
                return Err(garbled("its list does not go on".into()).into());
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        self.print_list(all, after)
    }

    fn print_list(&self, all: Vec<Value>, next: Option<String>) -> Done<Exit> {
        if self.out.json {
            self.out.document(&json!({"objects": all, "next": next}))?;
            return Ok(Exit::Ok);
        }
        let mut table = Table::new(&["OBJECT", "FIELDS"]);
        for object in &all {
            let object: Object = read(object)?;
            let mark = if object.complete == Some(false) { " (incomplete)" } else { "" };
            table.plain([format!("{}{mark}", object.id), clip(show::fields(&object.fields))]);
        }
        if table.is_empty() {
            self.out.note("no objects");
        } else {
            self.out.line(table.render(false))?;
        }
        if let Some(next) = next {
            self.out.note(format!("there are more behind {next}; raise --limit"));
        }
        Ok(Exit::Ok)
    }

    pub(super) async fn devices(&self) -> Done<Exit> {
        let answer = self.client.get("/api/v1/devices").await?;
        let devices: Vec<Object> = read_list(&answer, "devices")?;
        if devices.is_empty() {
            self.out.note("no devices yet; lights on this network appear by themselves within a minute");
        }
        if self.out.json || !devices.is_empty() {
            self.out.either(&answer, || show::devices(&devices, self.out.colour))?;
        }
        Ok(Exit::Ok)
    }
}

fn path(id: &ObjectId) -> String {
    format!("/api/v1/objects/{}/{}", segment(id.kind()), segment(id.name()))
}

fn stdin_fields() -> Result<Map<String, Value>, Failure> {
    let fix = "pipe in a JSON object: echo '{\"text\":\"milk\"}' | hearth put note/x -";
    let wrong = |detail: String| Failure::new(Exit::Usage, detail, fix);
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_BODY + 1).read_to_string(&mut text);
    let length = read.map_err(|error| wrong(format!("stdin cannot be read: {error}")))?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_BODY) {
        return Err(wrong("stdin holds more than 1 MiB, the most that one write may be".into()));
    }
    fields_from_json(&text).map_err(wrong)
}

/// So much of a list's line as fits beside its name.
fn clip(text: String) -> String {
    const MOST: usize = 100;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_clipped_between_letters() {
        assert_eq!(clip("é".repeat(100)), "é".repeat(100));
        assert_eq!(clip("é".repeat(101)), format!("{}…", "é".repeat(100)));
    }
}
