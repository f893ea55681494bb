//! What the message of the condition `Programmed` says of nodes: the words, and who reads one node out of them. Among those that
//! refuse may be pods, by their sidecars: `<namespace>/<pod>`.
//!
//! Guarantees: what [`read`] finds in a message of [`run`], [`refused`] or [`unheard`] is what that was made of; where names
//! were left out, it says so. Whatever else the text is, nothing is found in it that the words do not say.
//!
//! Limits: [`NAMED_MAX`] nodes are named.

/// Most nodes that a message names.
pub const NAMED_MAX: usize = 5;

const REFUSED: &str = "refused by ";
const KEPT: &str = "; an older version runs on there";
const WAITING: &str = "; waiting for ";
const ABSENT: &str = " not ready or not heard: ";
/// The end of a message that was too long.
const CUT: char = '…';
/// How names go on that are left out, where their number is told and where it is not.
const MORE: [&str; 2] = [" more", "others"];

/// Names of nodes as a message has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named<'a> {
    names: Vec<&'a str>,
    is_cut: bool,
}

/// What a message says of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said<'a> {
    /// Those whose agents do not run it yet.
    pub waiting: Named<'a>,
    /// Those whose agents refused it.
    pub refused: Named<'a>,
    /// Those that do not count: not ready, or not heard for long.
    pub absent: Named<'a>,
}

impl Named<'_> {
    /// Returns whether the node is among them; `None` where it may be one of those that were left out.
    pub fn has(&self, node: &str) -> Option<bool> {
        if self.names.contains(&node) { Some(true) } else { (!self.is_cut).then_some(false) }
    }
}

/// Returns the first names, and how many more there are.
pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more}{}", names[..NAMED_MAX].join(", "), MORE[0]),
    }
}

/// Returns what is said where `programmed` of `all` agents run it.
pub fn run(programmed: usize, all: usize, waiting: &[&str], absent: &[&str]) -> String {
    let waiting = match waiting.get(..NAMED_MAX) {
        _ if waiting.is_empty() => String::new(),
        // How many are missing changes within a second; that some are is what counts.
        Some(first) if waiting.len() > NAMED_MAX => format!("{WAITING}{} and {}", first.join(", "), MORE[1]),
        _ => format!("{WAITING}{}", waiting.join(", ")),
    };
    format!("{programmed} of {} run it{waiting}{}", counted(all, "agent"), of_absent(absent))
}

/// Returns what is said where agents of `all` refused it; the reason of one follows.
pub fn refused(nodes: &[&str], all: usize, is_kept: bool, absent: &[&str]) -> String {
    let kept = if is_kept { KEPT } else { "" };
    let (count, names) = (nodes.len(), named(nodes.iter().copied()));
    format!("{REFUSED}{count} of {} ({names}){kept}{}: ", counted(all, "agent"), of_absent(absent))
}

/// Returns what is said where no agent was heard.
pub fn unheard(absent: &[&str]) -> String {
    format!("no agent that is to run it was heard{}", of_absent(absent))
}

/// Reads what a message says of nodes.
pub fn read(message: &str) -> Said<'_> {
    let mut said = Said::default();
    let mut rest = match message.strip_prefix(REFUSED).map(|rest| rest.split_once(" (")) {
        Some(Some((_, rest))) => {
            let (names, rest) = names(rest);
            said.refused = names;
            let rest = rest.strip_prefix(')').unwrap_or_default();
            rest.strip_prefix(KEPT).unwrap_or(rest)
        }
        Some(None) => "",
        None => message.find("; ").map_or("", |at| &message[at..]),
    };
    if let Some(waiting) = rest.strip_prefix(WAITING) {
        (said.waiting, rest) = names(waiting);
    }
    let absent = rest.strip_prefix("; ").and_then(|rest| rest.split_once(ABSENT));
    if let Some((count, rest)) = absent
        && count.split_once(' ').is_some_and(|(count, noun)| count.parse::<usize>().is_ok() && noun.starts_with("node"))
    {
        (said.absent, _) = names(rest);
    } else if said != Said::default() && message.ends_with(CUT) && !rest.starts_with(": ") {
        // What came behind the names before is not there.
        said.absent.is_cut = true;
    }
    said
}

fn of_absent(nodes: &[&str]) -> String {
    match nodes.len() {
        0 => String::new(),
        count => format!("; {}{ABSENT}{}", counted(count, "node"), named(nodes.iter().copied())),
    }
}

/// Reads names up to the first text that is none.
fn names(text: &str) -> (Named<'_>, &str) {
    let (mut named, mut rest) = (Named::default(), text);
    loop {
        let end = rest.find(|one: char| !one.is_ascii_alphanumeric() && !['-', '.', '/'].contains(&one));
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        // A message that was too long was cut, maybe within this name.
        if after.starts_with(CUT) {
            named.is_cut = true;
            return (named, after);
        }
        named.names.push(name);
        rest = after;
        match rest.strip_prefix(", ") {
            Some(next) => rest = next,
            None => break,
        }
    }
    if let Some(left_out) = rest.strip_prefix(" and ") {
        named.is_cut = true;
        let end = MORE.iter().find_map(|word| {
            let (count, after) = left_out.split_once(word)?;
            count.bytes().all(|byte| byte.is_ascii_digit()).then_some(after)
        });
        rest = end.unwrap_or_default();
    } else if rest.starts_with([',', ' ']) {
        // Cut between two names.
        named.is_cut = true;
    }
    (named, rest)
}

/// Returns a number with its noun.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: [&str; 7] = ["n1", "n2.fab", "n-3", "a/p-4", "n5", "n6", "n7"];

    fn list(names: &'static [&'static str]) -> Named<'static> {
        Named { names: names[..names.len().min(NAMED_MAX)].to_vec(), is_cut: names.len() > NAMED_MAX }
    }

    #[test]
    fn what_is_written_of_nodes_is_read_again_however_many_there_are() {
        for first in 0..=MANY.len() {
            for second in 0..=MANY.len() {
                let (one, absent) = (&MANY[..first], &MANY[..second]);
                let expected = Said { absent: list(absent), ..Said::default() };
                assert_eq!(read(&run(3, 9, one, absent)), Said { waiting: list(one), ..expected.clone() });
                assert_eq!(read(&unheard(absent)), expected);
                // The reason is an agent's own text.
                let one = &MANY[..first.max(1)];
                for (is_kept, reason) in [(true, "full"), (false, "x; 1 node not ready or not heard: n9")] {
                    let message = refused(one, 9, is_kept, absent) + reason;
                    assert_eq!(read(&message), Said { refused: list(one), ..expected.clone() }, "{message}");
                }
            }
        }
    }

    #[test]
    fn the_words_are_for_people() {
        assert_eq!(run(1, 1, &[], &[]), "1 of 1 agent run it");
        assert_eq!(
            run(2, 9, &MANY, &MANY[..1]),
            "2 of 9 agents run it; waiting for n1, n2.fab, n-3, a/p-4, n5 and others; 1 node not ready or not heard: n1"
        );
        assert_eq!(
            refused(&MANY, 9, true, &[]),
            "refused by 7 of 9 agents (n1, n2.fab, n-3, a/p-4, n5 and 2 more); an older version runs on there: "
        );
    }

    #[test]
    fn a_node_is_among_them_or_not_or_that_is_not_said() {
        let message = run(1, 2, &[], &MANY[..5]);
        assert_eq!([read(&message).absent.has("n5"), read(&message).absent.has("n6")], [Some(true), Some(false)]);
        assert_eq!(read(&message).absent.has("n"), Some(false));
        let message = run(1, 2, &[], &MANY[..6]);
        assert_eq!([read(&message).absent.has("n5"), read(&message).absent.has("n6")], [Some(true), None]);
        let cut =
            format!("{}…", &run(1, 2, &[], &["node-1", "node-22"])[..run(1, 2, &[], &["node-1", "node-2"]).len()]);
        assert_eq!([read(&cut).absent.has("node-1"), read(&cut).absent.has("node-2")], [Some(true), None], "{cut}");
    }

    #[test]
    fn of_a_message_that_was_too_long_what_is_behind_its_end_is_not_said() {
        let whole = run(1, 9, &MANY[..2], &MANY[3..5]);
        let ends = whole.find("; waiting for n").unwrap() + "; waiting for n".len()..whole.len();
        for end in ends {
            let message = format!("{}…", &whole[..end]);
            assert_eq!(read(&message).absent.has("n5"), None, "{message}");
        }
        let message = refused(&MANY[..2], 9, true, &[]) + "a long reason…";
        assert_eq!(read(&message).absent.has("n5"), Some(false));
    }

    #[test]
    fn other_words_say_nothing_of_nodes() {
        for message in ["", "generation 3 runs on", "refused by", "a; b not ready or not heard: n1", "waiting for n1"] {
            assert_eq!(read(message), Said::default(), "{message}");
        }
    }
}
