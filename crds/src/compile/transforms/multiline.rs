//! The transform that joins lines: its settings, its place in the list, and whether there are lines.

use std::time::Duration;

use spillway_delivery::pattern::Pattern;
use spillway_delivery::transform::multiline::{Begins, Trace};
use spillway_delivery::transform::{Action, Multiline};

use super::{Read, Reader};
use crate::kinds::monitoring_pipeline::{InputSpec, InputType};
use crate::kinds::transform::{MultilineSpec, PresetSpec, TransformSpec, TransformType};
use crate::manifest::error::{Problem, quoted};
use crate::manifest::object::Object;

impl Reader<'_> {
    pub(super) fn multiline(&mut self, spec: &MultilineSpec) -> Read {
        let begins = match &spec.start_pattern {
            Some(text) => {
                let place = format!("{}.multiline.startPattern", self.field);
                Begins::Pattern(self.pattern(&place, text, Pattern::compile(text))?)
            }
            None => Begins::NoTrace(spec.presets.iter().copied().map(trace).collect()),
        };
        let multiline = Multiline {
            begins,
            lines_max: spec.max_lines,
            bytes_max: spec.max_bytes as usize,
            wait: Duration::from_millis(spec.max_wait_milliseconds),
        };
        Some((Action::Multiline(multiline), Vec::new()))
    }
}

fn trace(spec: PresetSpec) -> Trace {
    match spec {
        PresetSpec::Java => Trace::Java,
        PresetSpec::Python => Trace::Python,
        PresetSpec::Go => Trace::Go,
    }
}

/// Adds what is wrong with where lines are to be joined: only lines of files are, and before anything else is done to them.
pub(super) fn check_place(object: &Object, inputs: &[InputSpec], specs: &[TransformSpec], problems: &mut Vec<Problem>) {
    let reads_files = inputs.iter().any(|input| matches!(input.r#type, InputType::ContainerLogs | InputType::Files));
    let joins = |(index, spec): (usize, &TransformSpec)| (spec.r#type == TransformType::Multiline).then_some(index);
    for index in specs.iter().enumerate().filter_map(joins) {
        let field = format!("spec.transforms[{index}].type");
        let (message, allowed) = if index > 0 {
            (
                "lines are joined as they are read, before anything is done to them: no other transform may stand before it",
                "`Multiline` as the first of `transforms`",
            )
        } else if !reads_files {
            (
                "no input of the pipeline reads files, and what is pushed is an event already: there are no lines to be joined",
                "an input of type `ContainerLogs` or `Files`",
            )
        } else {
            continue;
        };
        let problem = Problem::new(object.root.at(&field), &field, message);
        problems.push(problem.found(quoted("Multiline")).allowed(allowed));
    }
}
