//! The transform that takes secrets out: what it looks for compiled.

use spillway_delivery::transform::{Action, Builtin, Finders, FindersError, Redact};

use super::parse::on_error;
use super::{Read, Reader};
use crate::kinds::transform::{BuiltinSpec, RedactSpec};

impl Reader<'_> {
    pub(super) fn redact(&mut self, spec: &RedactSpec) -> Read {
        let known: Vec<Builtin> = spec.builtin.iter().copied().map(builtin).collect();
        let fields = self.paths("redact.fields", &spec.fields);
        let finders = match Finders::compile(&known, &spec.patterns) {
            Ok(finders) => finders,
            Err(FindersError { index, error }) => {
                let all = format!("{}.redact.patterns", self.field);
                let place = index.map_or_else(|| all.clone(), |index| format!("{all}[{index}]"));
                let found = index.map_or_else(|| spec.patterns.join("|"), |index| spec.patterns[index].clone());
                return self.pattern(&place, &found, Err(error));
            }
        };
        let (fields, places) = fields?;
        let (replacement, on_error) = (spec.replacement.clone(), on_error(spec.on_error));
        Some((Action::Redact(Redact { finders, fields, replacement, on_error }), places))
    }
}

fn builtin(spec: BuiltinSpec) -> Builtin {
    match spec {
        BuiltinSpec::AwsAccessKey => Builtin::AwsAccessKey,
        BuiltinSpec::BearerToken => Builtin::BearerToken,
        BuiltinSpec::CreditCard => Builtin::CreditCard,
        BuiltinSpec::Email => Builtin::Email,
        BuiltinSpec::Ipv4 => Builtin::Ipv4,
        BuiltinSpec::Jwt => Builtin::Jwt,
        BuiltinSpec::PrivateKey => Builtin::PrivateKey,
        BuiltinSpec::UrlPassword => Builtin::UrlPassword,
    }
}
