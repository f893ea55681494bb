//! A range of the log sent again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ACTIVE_MAX, Job, JobError, JobKind, draw_id};
use crate::clock::{UnixNanos, write_rfc3339};
use crate::deliver::dead_letters::Selection;
use crate::deliver::desk::Desk;
use crate::log::Log;
use crate::settings::Strategy;

/// What is to be replayed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayRequest {
    /// The events of this route.
    pub route: String,
    /// Where to begin: `oldest`, a time (RFC 3339), a span before now (`90s`, `30m`, `2h`, `1d`) or a sequence.
    pub from: String,
    /// Where to end, not included: `now`, or as `from`.
    pub to: String,
    /// To this backend. When absent: to each of the route, of a route with `strategy: FirstHealthy` to the one that is active.
    #[serde(default)]
    pub backend: Option<String>,
    /// Only say what would be sent.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// First sequence.
    pub from: u64,
    /// Behind the last sequence.
    pub end: u64,
    /// Events of the route in there.
    pub events: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// The backends.
    pub backends: Vec<String>,
    /// The jobs that run now, one for each backend; none of a dry run.
    pub jobs: Vec<Job>,
}

/// A bound, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Oldest,
    Now,
    Seq(u64),
    Time(UnixNanos),
}

impl Bound {
    fn read(text: &str, now: UnixNanos) -> Result<Self, JobError> {
        let wrong = || {
            JobError::Request(format!(
                "`{}` is no bound; allowed: `oldest`, `now`, a time such as 2026-11-23T10:00:00Z, a span before now such \
                 as 90s, 30m, 2h or 1d, or a sequence",
                crate::backend::one_line(text)
            ))
        };
        match text {
            "oldest" => return Ok(Self::Oldest),
            "now" => return Ok(Self::Now),
            _ => {}
        }
        if let Ok(seq) = text.parse() {
            return Ok(Self::Seq(seq));
        }
        let unit = match text.chars().last() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => 0,
        };
        if unit > 0 {
            let count: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
            let span = count.checked_mul(unit * 1_000_000_000).filter(|span| *span >= 0).ok_or_else(wrong)?;
            return Ok(Self::Time(now.saturating_sub(span)));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        i64::try_from(time.as_nanosecond()).map(Self::Time).map_err(|_| wrong())
    }
}

impl Desk {
    /// Sends a range of the log again, as it was routed then, under the same ids; one job for each backend.
    pub async fn replay(self: &Arc<Self>, request: &ReplayRequest) -> Result<Replayed, JobError> {
        let _turn = self.jobs.turn.lock().await;
        let backends = self.targets(request)?;
        let log = self.pipeline.log().clone();
        let jobs = self.jobs();
        let pin = Job {
            id: draw_id(&jobs),
            kind: JobKind::Replay,
            created: self.jobs.hand.clock.now(),
            route: request.route.as_str().into(),
            backend: "".into(),
            selection: Selection::default(),
            from: 0,
            end: 0,
            selected: 0,
            cancelled: false,
            fails_for: None,
            outcome: None,
        };
        // Nothing goes while it is found out what is there.
        log.set_floor(&pin.key(), 0);
        let replayed = self.replay_pinned(request, backends, &pin, &log).await;
        log.drop_floor(&pin.key());
        replayed
    }

    async fn replay_pinned(
        self: &Arc<Self>,
        request: &ReplayRequest,
        backends: Vec<String>,
        pin: &Job,
        log: &Log,
    ) -> Result<Replayed, JobError> {
        let (from, end) = self.range(request, log).await?;
        let (counter, route) = (log.clone(), pin.route.clone());
        let count =
            tokio::task::spawn_blocking(move || counter.count_events(&counter.census(), &route, from, end)).await;
        let (events, bytes) = count.map_err(|error| JobError::Save(std::io::Error::other(error)))??;
        let mut replayed = Replayed { from, end, events, bytes, backends, jobs: Vec::new() };
        if request.dry_run {
            return Ok(replayed);
        }
        if events == 0 {
            let range = format!("from {from} to {end}, not included");
            return Err(JobError::Nothing(format!("no event of route {} is there {range}", request.route)));
        }
        let active = self.jobs.active() + replayed.backends.len();
        if active > ACTIVE_MAX {
            let text = format!("that would be {active} jobs of the pipeline at once, allowed: {ACTIVE_MAX}");
            return Err(JobError::UnderWay(text));
        }
        let _making = self.jobs.making.lock().await;
        let mut made = Vec::new();
        for backend in &replayed.backends {
            let id = draw_id(&self.jobs());
            let job = Job { id, backend: backend.as_str().into(), from, end, selected: events, ..pin.clone() };
            let spec = self.spec(&job).map_err(JobError::Request)?;
            made.push((job, spec));
        }
        for (job, spec) in made {
            self.begin(&job, spec, log.clone()).await?;
            replayed.jobs.push(job);
        }
        Ok(replayed)
    }

    /// Returns the backends that are meant.
    fn targets(&self, request: &ReplayRequest) -> Result<Vec<String>, JobError> {
        let settings = self.pipeline.settings();
        let Some(route) = settings.routes.iter().find(|route| *route.name == *request.route) else {
            let known: Vec<&str> = settings.routes.iter().map(|route| &*route.name).collect();
            let wanted = crate::backend::one_line(&request.route);
            return Err(JobError::Request(format!("no route {wanted}; found: {}", known.join(", "))));
        };
        let mut names = route.backends.iter().map(|reference| reference.name.to_string());
        Ok(match &request.backend {
            Some(backend) => vec![backend.clone()],
            None if route.strategy == Strategy::All => names.collect(),
            // One that is not healthy is as good as another: the best.
            None => {
                self.pipeline.active(&route.name).map(|name| name.to_string()).or(names.next()).into_iter().collect()
            }
        })
    }

    /// Returns the sequences that are meant, or says exactly what is left.
    async fn range(&self, request: &ReplayRequest, log: &Log) -> Result<(u64, u64), JobError> {
        let now = self.jobs.hand.clock.now();
        let (first, visible) = (log.first_seq(), log.visible_end());
        let left = || what_is_left(log, first, visible);
        let gone = |asked: String| {
            JobError::Nothing(format!("what was received before is gone: asked from {asked}, {}", left()))
        };
        let from = match Bound::read(&request.from, now)? {
            Bound::Oldest => first,
            Bound::Now => visible,
            Bound::Seq(seq) if seq < first && first > 1 => return Err(gone(seq.to_string())),
            Bound::Seq(seq) => seq.max(first),
            Bound::Time(time) => {
                let oldest = log.received_near(first);
                if first > 1 && oldest.is_some_and(|oldest| time < oldest) {
                    return Err(gone(rfc3339(time)));
                }
                log.seq_at(time).await?
            }
        };
        let end = match Bound::read(&request.to, now)? {
            Bound::Oldest => first,
            Bound::Now => visible,
            Bound::Seq(seq) => seq.min(visible),
            Bound::Time(time) => log.seq_at(time).await?,
        };
        if from >= end {
            return Err(JobError::Nothing(format!("nothing is there from {from} to {end}, not included: {}", left())));
        }
        Ok((from, end))
    }
}

fn what_is_left(log: &Log, first: u64, end: u64) -> String {
    if first >= end {
        return "the log holds nothing".into();
    }
    let time = |seq| log.received_near(seq).map_or("an unknown time".into(), rfc3339);
    let (last, oldest, newest) = (end - 1, time(first), time(end - 1));
    format!("the log holds events {first} to {last}, received from {oldest} to about {newest}")
}

fn rfc3339(time: UnixNanos) -> String {
    let mut text = Vec::new();
    write_rfc3339(&mut text, time);
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_others_are_told_what_is_allowed() {
        let now = 1_763_892_252_000_000_000;
        for (text, bound) in [
            ("oldest", Bound::Oldest),
            ("now", Bound::Now),
            ("17", Bound::Seq(17)),
            ("90s", Bound::Time(now - 90_000_000_000)),
            ("1d", Bound::Time(now - 86_400_000_000_000)),
            ("2025-11-23T10:04:12Z", Bound::Time(now)),
        ] {
            assert_eq!(Bound::read(text, now).unwrap(), bound, "{text}");
        }
        for text in ["", "yesterday", "-5m", "m", "2025-11-23", "99999999999999d", "-3"] {
            let error = Bound::read(text, now).unwrap_err().to_string();
            assert!(error.contains("allowed: `oldest`"), "{text}: {error}");
        }
    }
}
