//! Where letters are read from: an agent that runs, or a data directory.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spillway_delivery::deliver::dead_letters::{Groups, Offline, PAGE_LETTERS, Selection};
use spillway_delivery::event::EventId;
use spillway_delivery::filesystem::{Filesystem, RealFs};

use crate::ask::Asker;
use crate::cli::{LetterFlags, SelectionFlags};
use crate::exit::Failure;

/// Letters that are meant.
pub(super) struct Letters {
    place: Place,
    selection: Selection,
    pipeline: Option<String>,
}

enum Place {
    Agent(Asker),
    Data(Vec<Offline>),
}

/// What the agent is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct LettersQuery {
    /// `<namespace>/<name>`; every pipeline when absent.
    pub(crate) pipeline: Option<String>,
    pub(crate) selection: Selection,
    /// Where to go on.
    pub(crate) from: u64,
    /// At most so many.
    pub(crate) limit: Option<usize>,
}

/// What the agent answers when letters are to be shown.
#[derive(Debug, Deserialize)]
struct Shown {
    letters: Vec<Box<RawValue>>,
    next: Option<u64>,
}

impl Letters {
    pub(super) fn open(flags: &LetterFlags, ids: &[EventId]) -> Result<Self, Failure> {
        let selection = selection_of(&flags.selection, ids)?;
        let pipeline = flags.selection.pipeline.as_deref().map(full_name);
        let place = match &flags.data_dir {
            None => Place::Agent(Asker::new(&flags.agent)?),
            Some(dir) => {
                let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
                if !dir.join("spool").is_dir() {
                    let error = anyhow!("{} is no data directory: found no folder `spool` in it", dir.display());
                    return Err(Failure::failed("letters-read", error).next("name the --data-dir of the agent"));
                }
                let mut all = Offline::all(&fs, dir).map_err(unreadable)?;
                all.retain(|one| pipeline.as_ref().is_none_or(|wanted| slashed(&one.pipeline) == *wanted));
                Place::Data(all)
            }
        };
        Ok(Self { place, selection, pipeline })
    }

    /// Returns the letters, grouped, of each pipeline that has some.
    pub(super) fn groups(&self) -> Result<Vec<Groups>, Failure> {
        let mut groups: Vec<Groups> = match &self.place {
            Place::Agent(asker) => {
                let answer = asker.post("/v1/dead-letters/list", &self.query())?;
                serde_json::from_slice(&answer).context("its answer is not understood").map_err(not_understood)?
            }
            Place::Data(all) => {
                let groups: std::io::Result<Vec<Groups>> = all
                    .iter()
                    .map(|one| Ok(Groups { pipeline: slashed(&one.pipeline), ..one.groups(&self.selection)? }))
                    .collect();
                groups.map_err(unreadable)?
            }
        };
        groups.retain(|pipeline| pipeline.count > 0);
        Ok(groups)
    }

    /// Calls `visit` with the pipeline and the JSON of each letter, at most `limit` times.
    pub(super) fn each(&self, limit: usize, mut visit: impl FnMut(&str, &str)) -> Result<(), Failure> {
        let mut left = limit;
        match &self.place {
            Place::Agent(asker) => {
                for pipeline in self.groups()?.into_iter().map(|groups| groups.pipeline) {
                    self.each_asked(asker, &pipeline, &mut left, &mut visit)?;
                }
            }
            Place::Data(all) => {
                for one in all {
                    each_read(one, &self.selection, &mut left, &mut visit).map_err(unreadable)?;
                }
            }
        }
        Ok(())
    }

    fn each_asked(
        &self,
        asker: &Asker,
        pipeline: &str,
        left: &mut usize,
        visit: &mut impl FnMut(&str, &str),
    ) -> Result<(), Failure> {
        let mut next = Some(0);
        while let Some(from) = next.filter(|_| *left > 0) {
            let limit = Some((*left).min(PAGE_LETTERS));
            let query = LettersQuery { pipeline: Some(pipeline.to_owned()), from, limit, ..self.query() };
            let answer = asker.post("/v1/dead-letters/show", &query)?;
            let shown: Shown =
                serde_json::from_slice(&answer).context("its answer is not understood").map_err(not_understood)?;
            *left -= shown.letters.len().min(*left);
            shown.letters.iter().for_each(|letter| visit(pipeline, letter.get()));
            next = shown.next;
        }
        Ok(())
    }

    fn query(&self) -> LettersQuery {
        LettersQuery { pipeline: self.pipeline.clone(), selection: self.selection.clone(), ..LettersQuery::default() }
    }
}

fn each_read(
    one: &Offline,
    selection: &Selection,
    left: &mut usize,
    visit: &mut impl FnMut(&str, &str),
) -> std::io::Result<()> {
    let pipeline = slashed(&one.pipeline);
    let mut next = Some(0);
    while let Some(from) = next.filter(|_| *left > 0) {
        let page = one.page(selection, from, *left)?;
        *left -= page.count;
        String::from_utf8_lossy(&page.lines).lines().for_each(|line| visit(&pipeline, line));
        next = page.next;
    }
    Ok(())
}

/// Returns what the flags select, but for the pipeline.
pub(super) fn selection_of(flags: &SelectionFlags, ids: &[EventId]) -> Result<Selection, Failure> {
    Ok(Selection {
        route: flags.route.clone(),
        backend: flags.backend.clone(),
        reason: flags.reason.clone(),
        ids: super::ids_of(ids)?,
    })
}

/// Returns the name with its namespace.
pub(crate) fn full_name(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("default/{name}") }
}

/// Returns the key of a pipeline's directory as people write the pipeline: a namespace holds no dot.
fn slashed(uid: &str) -> String {
    uid.replacen('.', "/", 1)
}

fn unreadable(error: std::io::Error) -> Failure {
    Failure::failed("letters-read", anyhow::Error::new(error).context("dead letters cannot be read"))
}

fn not_understood(error: anyhow::Error) -> Failure {
    Failure::usage("status-answer", error.context("the agent answers what this version does not know"))
}
