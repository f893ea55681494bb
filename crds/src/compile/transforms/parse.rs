//! Transforms that parse: patterns, layouts and zones compiled.

use spillway_delivery::pattern::{Pattern, PatternError};
use spillway_delivery::transform::{
    Action, FieldPath, OnError, ParseJson, ParseRegex, ParseSeverity, ParseTimestamp, SeverityNumbers, TimeForm,
    TimeFormat, TimeFormatError,
};

use super::{Read, Reader};
use crate::kinds::transform::{
    OnErrorSpec, ParseJsonSpec, ParseRegexSpec, ParseSeveritySpec, ParseTimestampSpec, SeverityNumbersSpec,
    TimeFormatSpec,
};
use crate::manifest::error::{Problem, quoted};

impl Reader<'_> {
    pub(super) fn parse_json(&mut self, spec: &ParseJsonSpec) -> Read {
        let places = self.places("parseJSON", ["field", "into"]);
        let field = self.path(&places[0], &spec.field);
        let into = spec.into.as_ref().map(|into| self.path(&places[1], into));
        let into = match into {
            Some(None) => return None,
            into => into.flatten(),
        };
        Some((Action::ParseJson(ParseJson { field: field?, into, on_error: on_error(spec.on_error) }), places.into()))
    }

    pub(super) fn parse_regex(&mut self, spec: &ParseRegexSpec) -> Read {
        let [field_place, place] = self.places("parseRegex", ["field", "pattern"]);
        let field = self.path(&field_place, &spec.field);
        let pattern = self.pattern(&place, &spec.pattern, Pattern::compile(&spec.pattern))?;
        if pattern.names().len() == 0 {
            let problem =
                Problem::new(self.object.root.at(&place), &place, "no group has a name: nothing becomes a field");
            let problem = problem.found(quoted(&spec.pattern)).allowed("`(?<name>…)` around what becomes a field");
            self.problems.push(problem);
            return None;
        }
        let read: Vec<Option<FieldPath>> = pattern.names().map(|name| self.path(&place, name)).collect();
        let fields: Vec<FieldPath> = read.into_iter().collect::<Option<_>>()?;
        let places = std::iter::once(field_place).chain(fields.iter().map(|_| place.clone())).collect();
        let on_error = on_error(spec.on_error);
        Some((Action::ParseRegex(ParseRegex { field: field?, pattern, fields, on_error }), places))
    }

    pub(super) fn parse_timestamp(&mut self, spec: &ParseTimestampSpec) -> Read {
        let [field_place, into_place, layout, zone] =
            self.places("parseTimestamp", ["field", "into", "layout", "zone"]);
        let field = self.path(&field_place, &spec.field);
        let into = self.path(&into_place, spec.into.as_ref().unwrap_or(&spec.field));
        let format = TimeFormat::new(form(spec), spec.zone.as_deref()).map_err(|error| {
            let text = |text: &Option<String>| text.as_deref().map(quoted).unwrap_or_default();
            let (place, found, allowed) = match &error {
                TimeFormatError::Layout(_) => {
                    (layout, text(&spec.layout), "letters of strptime(3), a whole date at least")
                }
                TimeFormatError::ZoneMissing => (zone, text(&spec.layout), "`UTC`, or an offset such as `+01:00`"),
                TimeFormatError::Zone => (zone, text(&spec.zone), "`UTC`, or an offset such as `+01:00`"),
            };
            Problem::new(self.object.root.at(&place), &place, error.to_string()).found(found).allowed(allowed)
        });
        let format = self.good(format);
        let on_error = on_error(spec.on_error);
        let parse = ParseTimestamp { field: field?, into: into?, format: format?, on_error };
        Some((Action::ParseTimestamp(parse), vec![field_place, into_place]))
    }

    pub(super) fn parse_severity(&mut self, spec: &ParseSeveritySpec) -> Read {
        let places = self.places("parseSeverity", ["field", "into"]);
        let field = self.path(&places[0], &spec.field);
        let into = self.path(&places[1], spec.into.as_ref().unwrap_or(&spec.field));
        let numbers = spec.numbers.map(|numbers| match numbers {
            SeverityNumbersSpec::Syslog => SeverityNumbers::Syslog,
            SeverityNumbersSpec::Pino => SeverityNumbers::Pino,
            SeverityNumbersSpec::Python => SeverityNumbers::Python,
            SeverityNumbersSpec::OpenTelemetry => SeverityNumbers::OpenTelemetry,
        });
        let on_error = on_error(spec.on_error);
        Some((Action::ParseSeverity(ParseSeverity { field: field?, into: into?, numbers, on_error }), places.into()))
    }

    /// Returns a pattern, or tells why it is none.
    pub(super) fn pattern<T>(&mut self, place: &str, text: &str, compiled: Result<T, PatternError>) -> Option<T> {
        let refused = compiled.map_err(|PatternError { message, column }| {
            let column = column.map(|column| format!(" at character {column}")).unwrap_or_default();
            let message = format!("not a pattern: {message}{column}");
            let problem = Problem::new(self.object.root.at(place), place, message);
            problem.found(quoted(text)).allowed(PatternError::ALLOWED)
        });
        self.good(refused)
    }

    fn places<const N: usize>(&self, member: &str, fields: [&str; N]) -> [String; N] {
        fields.map(|field| format!("{}.{member}.{field}", self.field))
    }
}

pub(super) fn on_error(spec: OnErrorSpec) -> OnError {
    match spec {
        OnErrorSpec::Keep => OnError::Keep,
        OnErrorSpec::Drop => OnError::Drop,
    }
}

fn form(spec: &ParseTimestampSpec) -> TimeForm {
    match spec.format {
        TimeFormatSpec::Rfc3339 => TimeForm::Rfc3339,
        TimeFormatSpec::Rfc2822 => TimeForm::Rfc2822,
        TimeFormatSpec::CommonLog => TimeForm::CommonLog,
        TimeFormatSpec::Syslog => TimeForm::Syslog,
        TimeFormatSpec::UnixSeconds => TimeForm::UnixSeconds,
        TimeFormatSpec::UnixMilliseconds => TimeForm::UnixMilliseconds,
        TimeFormatSpec::UnixMicroseconds => TimeForm::UnixMicroseconds,
        TimeFormatSpec::UnixNanoseconds => TimeForm::UnixNanoseconds,
        TimeFormatSpec::Layout => TimeForm::Layout(spec.layout.clone().unwrap_or_default()),
    }
}
