//! Whether a controller leads: what its Lease says. Where none does, every status is old.
//!
//! # Limits
//! The clock of a machine of the cluster is compared with the one here: [`STALE`] is far more than a leader takes to renew.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use spillway_crds::served::LEASE;

use super::Step;
use super::facts::Facts;
use crate::cluster::Found;

/// After which a Lease that was not renewed is nobody's; one that leads renews every few seconds.
const STALE: Duration = Duration::from_secs(60);

const STEP: &str = "controller";

/// Returns whether a controller leads.
pub(super) fn step(facts: &Facts) -> Step {
    let system = &facts.system_namespace;
    let name = format!("Lease {system}/{LEASE}");
    let lease = match &facts.lease {
        Found::There(lease) => lease.spec.clone().unwrap_or_default(),
        Found::Absent => {
            let todo = format!("{}; --system-namespace where it runs elsewhere", todo(facts));
            return Step::broken(STEP, format!("no controller has led yet: there is no {name}"), todo);
        }
        Found::Unknown(why) => return Step::unknown(STEP, why),
    };
    let Some(renewed) = lease.renew_time.map(|time| time.0) else {
        return Step::broken(STEP, format!("no controller leads: the {name} was never renewed"), todo(facts));
    };
    let age = facts.now.duration_since(renewed);
    if age > SignedDuration::try_from(STALE).unwrap_or(SignedDuration::MAX) {
        let age = format!("{} seconds ago by the clock here", age.as_secs());
        let found = format!("no controller leads: the {name} was last renewed at {renewed}, {age}");
        return Step::broken(STEP, found, todo(facts));
    }
    match lease.holder_identity.filter(|holder| !holder.is_empty()) {
        Some(holder) => Step::ok(STEP, format!("{holder} leads")),
        // At the stop of one; the next takes it within seconds.
        None => Step::unknown(STEP, format!("the {name} was given back a moment ago, and nobody has taken it yet")),
    }
}

/// Returns where to look for controllers.
pub(super) fn todo(facts: &Facts) -> String {
    let system = &facts.system_namespace;
    format!("`kubectl get pods -n {system} -l app.kubernetes.io/component=controller`: does one run and lead?")
}
