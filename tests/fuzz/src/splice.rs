//! Transforms over bytes, beside the same over trees.
//!
//! The first byte says how many transforms there are, the next ones which; what is left is the event.

use serde_json::{Map, Value};
use spillway_delivery::event::Origin;
use spillway_delivery::json::{DEPTH_MAX, normalize_into, validate_object};
use spillway_delivery::transform::{Action, Chain, FieldPath, RenameField, SetField, SetValue, Transform};

const TRANSFORMS_MAX: u8 = 4;

/// A transform before it is one.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Set(&'static str),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    Keep(&'static [&'static str]),
}

const ALL: [Wanted; 12] = [
    Wanted::Set("a"),
    Wanted::Set("a.b"),
    Wanted::Set("b.c.d"),
    Wanted::Remove("a"),
    Wanted::Remove("a.b"),
    Wanted::Remove("b.c.d"),
    Wanted::Rename("a", "b"),
    Wanted::Rename("b.c", "a"),
    Wanted::Rename("a.b", "a.c"),
    Wanted::Keep(&["a"]),
    Wanted::Keep(&["a.b", "b"]),
    Wanted::Keep(&["b.c.d"]),
];

fn path(text: &str) -> FieldPath {
    FieldPath::parse(text).expect("a path of a name is one")
}

impl Wanted {
    fn action(self) -> Action {
        match self {
            Self::Set(to) => Action::Set(vec![SetField { path: path(to), value: SetValue::Text("x".into()) }]),
            Self::Remove(from) => Action::Remove(vec![path(from)]),
            Self::Rename(from, to) => Action::Rename(vec![RenameField { from: path(from), to: path(to) }]),
            Self::Keep(paths) => Action::Keep(paths.iter().map(|text| path(text)).collect()),
        }
    }

    fn apply(self, event: &Value) -> Value {
        let mut after = event.clone();
        match self {
            Self::Set(to) => drop(set(&mut after, to, Value::from("x"))),
            Self::Remove(from) => drop(take(&mut after, from)),
            Self::Rename(from, to) => {
                if let Some(value) = take(&mut after, from)
                    && set(&mut after, to, value).is_none()
                {
                    return event.clone();
                }
            }
            Self::Keep(paths) => {
                after = Value::Object(Map::new());
                for path in paths {
                    let value = path.split('.').try_fold(event, |value, key| value.as_object()?.get(key));
                    if let Some(value) = value {
                        set(&mut after, path, value.clone()).expect("nothing is in the way");
                    }
                }
            }
        }
        after
    }
}

fn take(value: &mut Value, path: &str) -> Option<Value> {
    let members = value.as_object_mut()?;
    match path.split_once('.') {
        None => members.remove(path),
        Some((first, rest)) => take(members.get_mut(first)?, rest),
    }
}

/// Sets a field; `None`, and nothing is changed, where something that is no object is in the way.
fn set(value: &mut Value, path: &str, to: Value) -> Option<()> {
    let members = value.as_object_mut()?;
    let Some((first, rest)) = path.split_once('.') else {
        members.insert(path.into(), to);
        return Some(());
    };
    let mut inner = members.get(first).cloned().unwrap_or_else(|| Value::Object(Map::new()));
    set(&mut inner, rest, to)?;
    members.insert(first.into(), inner);
    Some(())
}

/// See the table of [the crate](crate).
///
/// # Panics
/// Where it does not hold.
pub fn check(bytes: &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return };
    let count = usize::from(count % TRANSFORMS_MAX) + 1;
    let Some((choices, event)) = rest.split_at_checked(count) else { return };
    if validate_object(event).is_err() {
        return;
    }
    let mut normal = Vec::new();
    normalize_into(event, &mut normal);
    // What has a number that is in no tree is left to the property tests.
    let Ok(mut tree) = serde_json::from_slice::<Value>(&normal) else { return };
    let wanted: Vec<Wanted> = choices.iter().map(|choice| ALL[usize::from(*choice) % ALL.len()]).collect();
    let named =
        |(number, wanted): (usize, &Wanted)| Transform { name: number.to_string().into(), action: wanted.action() };
    let chain = Chain::new(&wanted.iter().enumerate().map(named).collect::<Vec<_>>());
    let after = chain.apply(&normal, &Origin::default()).expect("nothing here drops");
    tree = wanted.iter().fold(tree, |tree, wanted| wanted.apply(&tree));
    let Ok(ours) = serde_json::from_slice::<Value>(&after) else {
        // A move may nest deeper than theirs reads, and no deeper than ours does.
        assert!(validate_object(&after).is_ok(), "{wanted:?} of {}: {}", event.escape_ascii(), after.escape_ascii());
        return;
    };
    assert_eq!(ours, tree, "{wanted:?} of {}", event.escape_ascii());
    let info = validate_object(&after);
    assert!(info.is_ok_and(|info| info.is_plain()), "at most {DEPTH_MAX} deep: {}", after.escape_ascii());
}
