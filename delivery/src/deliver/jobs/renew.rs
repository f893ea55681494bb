//! Jobs that run go over to their backends as the configuration has them now, and end where they have none any more.

use super::{Job, JobTarget, kept_when_refused};
use crate::deliver::desk::Desk;
use crate::deliver::{DeliverySpec, Engine};

/// What the configuration means to a job that runs.
#[derive(Debug)]
pub enum Renewed {
    /// Its backend is what its delivery was made of, or nothing is known of it now.
    AsItIs,
    /// Its delivery made anew: its backend is another than the one it was made of.
    To(Box<DeliverySpec>),
    /// It must not, or cannot, have its backend any more; says why, in one line.
    Ends(String),
}

/// Asked for each job that runs.
pub type Renew<'a> = dyn Fn(&JobTarget) -> Renewed + Sync + 'a;

impl Engine {
    /// Gives jobs that run the backends that `renew` makes for them: what is under way lands first, what was planned keeps
    /// its members and keys, and what waits begins at once. Those that have none any more end.
    pub async fn renew_jobs(&self, renew: &Renew<'_>) {
        for desk in self.desks() {
            for (id, why) in desk.renew(renew).await {
                desk.fail(&id, why).await;
            }
        }
    }
}

impl Desk {
    /// Returns the jobs that are to end, with the reason.
    async fn renew(&self, renew: &Renew<'_>) -> Vec<(String, String)> {
        let _making = self.jobs.making.lock().await;
        let running = self.jobs.running().clone();
        let runs = |job: &Job| running.get(&job.id).filter(|_| job.outcome.is_none() && !job.is_told_to_end());
        let mut ending = Vec::new();
        for job in self.jobs() {
            let Some(running) = runs(&job) else { continue };
            match renew(&self.target_of(&job)) {
                Renewed::AsItIs => {}
                Renewed::To(spec) => {
                    tracing::info!(job = %job.id, route = %job.route, backend = %job.backend, "job goes on with its backend as it is now");
                    running.orders.send_modify(|order| order.spec = kept_when_refused(*spec));
                }
                Renewed::Ends(why) => ending.push((job.id, why)),
            }
        }
        ending
    }

    /// Ends a job for a reason that nobody asked for. Where that cannot be written down, the next edit tries again.
    async fn fail(&self, id: &str, why: String) {
        tracing::warn!(job = id, why, "job ends; what it did not send stays where it is");
        let why = crate::backend::one_line(&why);
        if let Err(error) = self.end_by(id, |job| Job { fails_for: Some(why), ..job }).await {
            tracing::warn!(job = id, %error, "the end of a job cannot be written down");
        }
    }
}
