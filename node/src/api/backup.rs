//! A backup of the running node, streamed from a file that has no name.

use std::{fs::File, io::Read as _, sync::Arc};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;

use super::{ApiContext, access::Access, extract::Params, problem::Problem};

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupParams {
    #[serde(default)]
    with_key: bool,
}

pub(super) async fn backup(
    State(context): State<Arc<ApiContext>>,
    Extension(access): Extension<Access>,
    Params(params): Params<BackupParams>,
) -> Result<Response, Problem> {
    if params.with_key && access != Access::Socket {
        let detail = "the key of a node never leaves it over the network";
        return Err(Problem::forbidden(detail, "run `hearth backup --with-key` on the board"));
    }
    let made = context.control.backup(params.with_key).await?;
    let pieces = stream::try_unfold(made.file, |file| async move {
        let read = tokio::task::spawn_blocking(move || piece(file)).await;
        // Breaking off is the only way left to say that the file is not whole.
        read.map_err(std::io::Error::other)?
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, made.bytes.to_string()),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

fn piece(mut file: File) -> std::io::Result<Option<(Bytes, File)>> {
    let mut bytes = Vec::with_capacity(PIECE);
    let read = (&mut file).take(PIECE as u64).read_to_end(&mut bytes)?;
    Ok((read > 0).then(|| (Bytes::from(bytes), file)))
}
