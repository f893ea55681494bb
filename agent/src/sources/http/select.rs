//! The pipelines that a request means where HTTP alone has a say: one that names a route, and one without a token.

use std::time::Duration;

use http::StatusCode;

use super::answer::Refused;
use crate::sources::pushed::sender::Sender;
use crate::sources::pushed::targets::{Selection, TargetName, full_name, named};

/// Finds the pipeline of a sidecar's request: named in full, the one that it runs, and there in a moment where it is not yet, since
/// the agent of the node and the sidecar are not told of it at the same time. For no other may anybody pass by conditions and
/// transforms.
pub(crate) fn select_route(
    names: &[TargetName],
    sender: &Sender,
    wanted: Option<&str>,
    route: &str,
) -> Result<Selection, Refused> {
    let own = sender.pod.as_ref().zip(sender.sidecar_of.as_deref());
    if own.is_none_or(|(pod, pipeline)| full_name(wanted) != Some((&*pod.namespace, pipeline))) {
        let message = "X-Spillway-Route is for the sidecar of a pod, and for the pipeline that it runs";
        return Err(Refused::new(StatusCode::FORBIDDEN, "not-of-its-sidecar", message));
    }
    named(names, wanted).map(|name| Selection::Route(name, route.to_owned())).ok_or_else(|| {
        let message = "no pipeline of this name takes events of this pod yet, nothing was kept";
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "pipeline-untold", message).after(Duration::from_secs(1))
    })
}

/// Finds the pipeline that a request without a token means, among those that take one: it must be named in full, so that nobody
/// gets what was meant for another tenant, and no other is told of.
pub(crate) fn select_open(names: &[TargetName], wanted: Option<&str>) -> Result<Selection, Refused> {
    named(names, wanted).map(Selection::One).ok_or_else(|| {
        let message =
            "no token, and X-Spillway-Pipeline names no pipeline, as <namespace>/<name>, that takes events without one";
        Refused::unauthorized().because("token-missing", message.to_owned())
    })
}
