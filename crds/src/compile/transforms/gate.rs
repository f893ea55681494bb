//! Transforms that drop events by what came before: keys and conditions compiled.

use std::time::Duration;

use spillway_delivery::condition::{Condition, Expression};
use spillway_delivery::transform::{Action, Deduplicate, Looks, RateLimit, Sample};

use super::parse::on_error;
use super::{Read, Reader};
use crate::compile::pipeline::not_compiled;
use crate::kinds::transform::{DeduplicateSpec, OnErrorSpec, RateLimitSpec, SampleSpec};

/// Which events, as a manifest says it.
struct Words<'s> {
    when: Option<&'s String>,
    key: Option<&'s String>,
    on_error: OnErrorSpec,
}

impl Reader<'_> {
    pub(super) fn sample(&mut self, spec: &SampleSpec) -> Read {
        let words = Words { when: spec.when.as_ref(), key: spec.key_expression.as_ref(), on_error: spec.on_error };
        let looks = self.looks("sample", &words)?;
        Some((Action::Sample(Sample { looks, keep: spec.keep, out_of: spec.out_of }), Vec::new()))
    }

    pub(super) fn rate_limit(&mut self, spec: &RateLimitSpec) -> Read {
        let words = Words { when: spec.when.as_ref(), key: spec.key_expression.as_ref(), on_error: spec.on_error };
        let looks = self.looks("rateLimit", &words)?;
        let limit = RateLimit {
            looks,
            events_per_second: spec.events_per_second,
            burst_events: spec.burst_events.unwrap_or(spec.events_per_second),
            keys_max: spec.max_keys,
        };
        Some((Action::RateLimit(limit), Vec::new()))
    }

    pub(super) fn deduplicate(&mut self, spec: &DeduplicateSpec) -> Read {
        let words = Words { when: spec.when.as_ref(), key: spec.key_expression.as_ref(), on_error: spec.on_error };
        let fields = self.paths("deduplicate.fields", &spec.fields);
        let looks = self.looks("deduplicate", &words)?;
        let (fields, places) = fields?;
        let window = Duration::from_secs(spec.window_seconds.into());
        Some((Action::Deduplicate(Deduplicate { looks, fields, window, keys_max: spec.max_keys }), places))
    }

    /// Returns which events a transform looks at; all that is wrong is told.
    fn looks(&mut self, member: &str, words: &Words<'_>) -> Option<Looks> {
        let place = |end: &str| format!("{}.{member}.{end}", self.field);
        let (key_place, when_place) = (place("keyExpression"), place("when"));
        let key = words.key.map(|text| {
            let expression = Expression::compile(text);
            let refused = expression.map_err(|error| not_compiled(self.object, &key_place, text, error));
            self.good(refused)
        });
        let when = words.when.map(|text| {
            let condition = Condition::compile(text);
            let refused = condition.map_err(|error| not_compiled(self.object, &when_place, text, error));
            self.good(refused)
        });
        let is_wrong = matches!(key, Some(None)) || matches!(when, Some(None));
        let looks = Looks { when: when.flatten(), key: key.flatten(), on_error: on_error(words.on_error) };
        (!is_wrong).then_some(looks)
    }
}
