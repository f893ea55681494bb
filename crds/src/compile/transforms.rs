//! The transforms of a pipeline: fields read, conditions and expressions compiled.

use spillway_delivery::condition::{Condition, Expression};
use spillway_delivery::transform::{Action, FieldPath, PathError, RenameField, SetField, SetValue, Transform};

use super::pipeline::not_compiled;
use crate::kinds::monitoring_pipeline::InputSpec;
use crate::kinds::transform::{RenameFieldSpec, SetFieldSpec, TransformSpec, TransformType};
use crate::manifest::error::{Problem, quoted};
use crate::manifest::object::Object;

mod gate;
mod multiline;
mod parse;
mod redact;

/// What a transform does, and where its fields are named.
type Read = Option<(Action, Vec<String>)>;

/// Returns the transforms that are good, and adds what is wrong with the others.
pub(super) fn transforms(
    object: &Object,
    inputs: &[InputSpec],
    specs: &[TransformSpec],
    problems: &mut Vec<Problem>,
) -> Vec<Transform> {
    multiline::check_place(object, inputs, specs, problems);
    let read = specs.iter().enumerate().filter_map(|(index, spec)| {
        let mut reader = Reader { object, field: format!("spec.transforms[{index}]"), problems: &mut *problems };
        let action = reader.action(spec)?;
        Some(Transform { name: spec.name.as_str().into(), action })
    });
    read.collect()
}

struct Reader<'a> {
    object: &'a Object,
    /// The transform, as errors name it.
    field: String,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// Returns what the transform does; `None` where something is wrong, which is told here or was told by the schema.
    fn action(&mut self, spec: &TransformSpec) -> Option<Action> {
        let (action, places) = match spec.r#type {
            TransformType::ParseJson => self.parse_json(spec.parse_json.as_ref()?)?,
            TransformType::ParseRegex => self.parse_regex(spec.parse_regex.as_ref()?)?,
            TransformType::ParseTimestamp => self.parse_timestamp(spec.parse_timestamp.as_ref()?)?,
            TransformType::ParseSeverity => self.parse_severity(spec.parse_severity.as_ref()?)?,
            TransformType::Redact => self.redact(spec.redact.as_ref()?)?,
            TransformType::Sample => self.sample(spec.sample.as_ref()?)?,
            TransformType::RateLimit => self.rate_limit(spec.rate_limit.as_ref()?)?,
            TransformType::Deduplicate => self.deduplicate(spec.deduplicate.as_ref()?)?,
            TransformType::Multiline => self.multiline(spec.multiline.as_ref()?)?,
            TransformType::Set => self.set(&spec.set.as_ref()?.fields)?,
            TransformType::Rename => self.rename(&spec.rename.as_ref()?.fields)?,
            TransformType::Remove => {
                let (paths, places) = self.paths("remove.fields", &spec.remove.as_ref()?.fields)?;
                (Action::Remove(paths), places)
            }
            TransformType::Keep => {
                let (paths, places) = self.paths("keep.fields", &spec.keep.as_ref()?.fields)?;
                (Action::Keep(paths), places)
            }
            TransformType::Drop => {
                let text = &spec.drop.as_ref()?.when;
                let place = format!("{}.drop.when", self.field);
                let condition = Condition::compile(text);
                let refused = condition.map_err(|error| not_compiled(self.object, &place, text, error));
                (Action::Drop(self.good(refused)?), Vec::new())
            }
        };
        if let Some((earlier, later)) = action.conflict() {
            let (paths, place) = (action.paths(), &places[later]);
            let message = format!("the field is also that of `{}`, or one is in the other", places[earlier]);
            let problem =
                Problem::new(self.object.root.at(place), place, message).found(quoted(&paths[later].to_string()));
            self.problems
                .push(problem.allowed("fields that are not in each other; a second transform for the other one"));
            return None;
        }
        Some(action)
    }

    fn set(&mut self, fields: &[SetFieldSpec]) -> Option<(Action, Vec<String>)> {
        let read = fields.iter().enumerate().map(|(index, field)| {
            let place = format!("{}.set.fields[{index}]", self.field);
            let path = self.path(&format!("{place}.name"), &field.name);
            let value = match (&field.value, &field.value_expression) {
                (Some(text), _) => Some(SetValue::Text(text.clone())),
                (None, Some(text)) => {
                    let place = format!("{place}.valueExpression");
                    let expression = Expression::compile(text);
                    let refused = expression.map_err(|error| not_compiled(self.object, &place, text, error));
                    self.good(refused).map(SetValue::Expression)
                }
                (None, None) => None,
            };
            Some((SetField { path: path?, value: value? }, format!("{place}.name")))
        });
        let (fields, places) = all(read.collect())?;
        Some((Action::Set(fields), places))
    }

    fn rename(&mut self, fields: &[RenameFieldSpec]) -> Option<(Action, Vec<String>)> {
        let read = fields.iter().enumerate().map(|(index, field)| {
            let place = |end: &str| format!("{}.rename.fields[{index}].{end}", self.field);
            let (from_place, to_place) = (place("from"), place("to"));
            let (from, to) = (self.path(&from_place, &field.from), self.path(&to_place, &field.to));
            Some((RenameField { from: from?, to: to? }, [from_place, to_place]))
        });
        let (fields, places) = all(read.collect())?;
        Some((Action::Rename(fields), places.into_iter().flatten().collect()))
    }

    fn paths(&mut self, member: &str, fields: &[String]) -> Option<(Vec<FieldPath>, Vec<String>)> {
        let read = fields.iter().enumerate().map(|(index, text)| {
            let place = format!("{}.{member}[{index}]", self.field);
            self.path(&place, text).map(|path| (path, place))
        });
        all(read.collect())
    }

    fn path(&mut self, place: &str, text: &str) -> Option<FieldPath> {
        let problem = |error: PathError| {
            let problem = Problem::new(self.object.root.at(place), place, format!("not the name of a field: {error}"));
            problem.found(quoted(text)).allowed(PathError::ALLOWED)
        };
        let read = FieldPath::parse(text).map_err(problem);
        self.good(read)
    }

    fn good<T>(&mut self, read: Result<T, Problem>) -> Option<T> {
        read.map_err(|problem| self.problems.push(problem)).ok()
    }
}

/// Returns everything, in two lists, if nothing is missing.
fn all<T, P>(read: Vec<Option<(T, P)>>) -> Option<(Vec<T>, Vec<P>)> {
    let read: Option<Vec<(T, P)>> = read.into_iter().collect();
    Some(read?.into_iter().unzip())
}
