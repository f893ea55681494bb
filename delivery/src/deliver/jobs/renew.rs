//! Jobs that run go over to their backends as the configuration has them now.

use super::{Job, JobTarget, kept_when_refused};
use crate::deliver::desk::Desk;
use crate::deliver::{DeliverySpec, Engine};

/// Asked for each job that runs: its delivery made anew, where its backend is another than the one it was made of.
pub type Renew<'a> = dyn Fn(&JobTarget) -> Option<DeliverySpec> + Sync + 'a;

impl Engine {
    /// Gives jobs that run the backends that `renew` makes for them: what is under way lands first, what was planned keeps
    /// its members and keys, and what waits begins at once.
    pub async fn renew_jobs(&self, renew: &Renew<'_>) {
        for desk in self.desks() {
            desk.renew(renew).await;
        }
    }
}

impl Desk {
    async fn renew(&self, renew: &Renew<'_>) {
        let _making = self.jobs.making.lock().await;
        let running = self.jobs.running().clone();
        let runs = |job: &Job| running.get(&job.id).filter(|_| job.outcome.is_none());
        for job in self.jobs() {
            let Some(running) = runs(&job) else { continue };
            let Some(spec) = renew(&self.target_of(&job)).map(kept_when_refused) else { continue };
            tracing::info!(job = %job.id, route = %job.route, backend = %job.backend, "job goes on with its backend as it is now");
            running.orders.send_modify(|order| order.spec = spec);
        }
    }
}
