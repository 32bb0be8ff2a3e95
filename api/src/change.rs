//! What changing requests do: check the body, hand a command to the node, wait for
//! its reply. Whether a command can be carried out is the node's to say.

use std::sync::Arc;

use axum::extract::{FromRequest as _, Request, State};
use serde_json::Value;

use crate::body::{Needed, Optional};
use crate::command::{Command, Reply};
use crate::respondent::Respondent;
use crate::{shared, wall, write};

type Node = State<Arc<Respondent>>;

pub(crate) async fn switchover(State(node): Node, Needed(body): Needed) -> Reply {
    node.carry_out(write::handover(false, &body, node.paused(), wall::now())).await
}

pub(crate) async fn failover(State(node): Node, Needed(body): Needed) -> Reply {
    node.carry_out(write::handover(true, &body, node.paused(), wall::now())).await
}

pub(crate) async fn cancel_switchover(State(node): Node) -> Reply {
    node.carry_out(Ok(Command::CancelSwitchover)).await
}

pub(crate) async fn restart(State(node): Node, Optional(body): Optional) -> Reply {
    node.carry_out(write::restart(&body, node.paused(), wall::now())).await
}

pub(crate) async fn cancel_restart(State(node): Node) -> Reply {
    node.carry_out(Ok(Command::CancelRestart)).await
}

pub(crate) async fn reload(State(node): Node) -> Reply {
    node.carry_out(Ok(Command::Reload)).await
}

pub(crate) async fn reinitialize(State(node): Node, Optional(body): Optional) -> Reply {
    node.carry_out(Ok(write::reinitialize(&body))).await
}

pub(crate) async fn patch_config(State(node): Node, Needed(body): Needed) -> Reply {
    node.carry_out(Ok(Command::PatchConfig(Value::Object(body)))).await
}

pub(crate) async fn put_config(State(node): Node, Needed(body): Needed) -> Reply {
    node.carry_out(Ok(Command::PutConfig(Value::Object(body)))).await
}

/// The mode is looked at before the body, as with Patroni.
pub(crate) async fn failsafe(State(node): Node, request: Request) -> Result<Reply, Reply> {
    if !node.view().is_some_and(|view| shared::failsafe_mode(&view)) {
        return Err(Reply::text(502, ""));
    }
    let Needed(body) = Needed::from_request(request, &()).await?;
    Ok(node.carry_out(Ok(Command::Failsafe(Value::Object(body)))).await)
}

pub(crate) async fn leave_running(State(node): Node) -> Reply {
    node.carry_out(Ok(Command::LeaveRunning)).await
}

pub(crate) async fn move_store(State(node): Node, Needed(body): Needed) -> Reply {
    node.carry_out(write::move_store(&body)).await
}

pub(crate) async fn sigterm() -> Reply {
    Reply::text(202, "shutdown scheduled")
}

pub(crate) async fn sharding(_: Needed) -> Reply {
    Reply::text(200, "OK")
}
