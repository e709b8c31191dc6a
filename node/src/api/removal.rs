//! Removing a node from the household for good.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use mesh_proto::NodeId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiContext,
    admin::{find_node, short},
    extract::{Named, Params},
    problem::Problem,
};
use crate::service::{NodeStatus, Status};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveParams {
    #[serde(default)]
    force: bool,
}

pub(super) async fn remove(
    State(context): State<Arc<ApiContext>>,
    Named(given): Named,
    Params(params): Params<RemoveParams>,
) -> Result<Json<Value>, Problem> {
    let status = context.service.status().await?;
    let node = find_node(&status.nodes, &given)?;
    check(&status, node, params.force)?;
    let key: NodeId = node.id.parse().map_err(|_| Problem::internal())?;
    let stay = context.service.remove(key).await?;
    let name = |id: NodeId| {
        let found = status.nodes.iter().find(|node| node.id == id.to_string());
        found.map_or_else(|| id.short().to_string(), |node| node.name.clone())
    };
    let stay: Vec<String> = stay.into_iter().map(name).collect();
    Ok(Json(json!({ "id": node.id, "name": node.name, "removed": true, "admitted": stay })))
}

/// Whether this node may remove that one, and should.
fn check(status: &Status, node: &NodeStatus, force: bool) -> Result<(), Problem> {
    let conflict = |slug, detail: String, fix: String| {
        Problem::new(StatusCode::CONFLICT, slug, "Not in this state", detail, fix)
    };
    let is_admin = |node: &NodeStatus| node.roles.contains(&"admin");
    if node.id == status.node {
        let detail = format!("{} is this node, and a node does not remove itself", node.name);
        let fix = "run `hearth leave` here, or remove it on another node whose role is admin";
        return Err(conflict("removes-itself", detail, fix.into()));
    }
    let me = status.nodes.iter().find(|node| node.id == status.node);
    if !me.is_some_and(is_admin) {
        let admins: Vec<&str> =
            status.nodes.iter().filter(|node| is_admin(node)).map(|node| node.name.as_str()).collect();
        let detail = "this node may not remove another: it is no admin of the household";
        let fix = format!("run it on a node whose role is admin: {}", admins.join(", "));
        return Err(conflict("no-admin", detail.into(), fix));
    }
    let others = status.nodes.iter().filter(|other| other.id != node.id && other.id != status.node);
    let (all, admins) =
        others.fold((0, 0), |(all, admins), node| (all + 1, admins + usize::from(is_admin(node))));
    if is_admin(node) && all > 0 && admins == 0 && !force {
        let detail = format!(
            "{} ({}) is the last admin beside this node: should this board be lost too, nobody could invite a node or remove one, ever again",
            node.name,
            short(&node.id)
        );
        let fix = "let a node join with `hearth invite --role admin` first, or add --force";
        return Err(conflict("last-admin", detail, fix.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::api::fake::FakeLoop;

    /// A household of these roles; this node is the first.
    async fn household(roles: &[&[&'static str]]) -> Status {
        let mut status = FakeLoop::start().service().status().await.unwrap();
        let like = status.nodes[0].clone();
        status.nodes = roles
            .iter()
            .enumerate()
            .map(|(number, roles)| NodeStatus {
                id: if number == 0 { like.id.clone() } else { format!("{number:064x}") },
                name: format!("n{number}"),
                roles: roles.to_vec(),
                ..like.clone()
            })
            .collect();
        status
    }

    fn slug(status: &Status, node: usize, force: bool) -> &'static str {
        check(status, &status.nodes[node], force).err().map_or("", |problem| problem.slug())
    }

    #[tokio::test]
    async fn a_node_removes_others_if_it_is_an_admin() {
        let (admin, member): (&[_], &[_]) = (&["admin", "member"], &["member"]);
        let home = household(&[admin, member, member]).await;
        assert_eq!(slug(&home, 0, true), "removes-itself");
        assert_eq!(slug(&home, 1, false), "");
        assert_eq!(slug(&household(&[member, member, admin]).await, 1, true), "no-admin");
    }

    #[tokio::test]
    async fn the_last_admin_beside_this_node_is_removed_by_force_only() {
        let (admin, member): (&[_], &[_]) = (&["admin", "member"], &["member"]);
        let home = household(&[admin, admin, member]).await;
        assert_eq!((slug(&home, 1, false), slug(&home, 1, true)), ("last-admin", ""));
        assert_eq!(slug(&home, 2, false), "");
        assert_eq!(slug(&household(&[admin, admin, admin]).await, 1, false), "");
        assert_eq!(slug(&household(&[admin, admin]).await, 1, false), "", "nobody else is left behind");
    }
}
