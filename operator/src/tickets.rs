//! Proofs that a pipeline was given to a node: an agent that says it holds events of a pipeline shows one, or is not believed.
//!
//! Without them the token of one agent would be enough to be served any pipeline of the cluster, with its Secrets.
//! A ticket is HMAC-SHA-256 (RFC 2104) over the node and the object under a key that all replicas derive from the key of our
//! first CA, and that is kept when another CA takes over. It tells nothing of time: what a node was given once it may finish.
//! Another key ends every ticket; what is held then stays in the agent's log until a pod on its node brings the pipeline back.
//!
//! It must not know: what is held, and by whom it is asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag, sign, verify};

use crate::world::ObjectKey;

/// What the key is derived for.
const PURPOSE: &[u8] = b"spillway tickets of held pipelines, 1";

/// Makes tickets, and knows them again.
#[derive(Debug, Clone)]
pub struct Tickets(Arc<Key>);

/// The tickets of one node, made when they are given out: kept, they would be half of what a node costs.
#[derive(Debug, Clone)]
pub struct NodeTickets {
    tickets: Tickets,
    node: Arc<str>,
}

/// Those of one node are the same: a process has one key.
impl PartialEq for NodeTickets {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl Eq for NodeTickets {}

impl NodeTickets {
    /// Returns the ticket of every pipeline among these objects, by its label.
    pub fn of<'a>(&self, labels: impl Iterator<Item = &'a Arc<str>>) -> BTreeMap<String, String> {
        let is_pipeline = |label: &&Arc<str>| ObjectKey::of_label(label).is_some_and(|key| key.kind.is_pipeline());
        labels.filter(is_pipeline).map(|label| (label.to_string(), self.tickets.of(&self.node, label))).collect()
    }
}

impl Tickets {
    /// Returns those under a key that follows from `secret`.
    pub fn new(secret: &[u8]) -> Self {
        Self::under(&derived(secret))
    }

    /// Returns those under `key`, which was [`derived`].
    pub fn under(key: &[u8]) -> Self {
        Self(Arc::new(Key::new(HMAC_SHA256, key)))
    }

    /// Returns those of a node.
    pub fn of_node(&self, node: &Arc<str>) -> NodeTickets {
        NodeTickets { tickets: self.clone(), node: Arc::clone(node) }
    }

    /// Returns the ticket of `object` for `node`, in hexadecimal digits.
    pub fn of(&self, node: &str, object: &str) -> String {
        let tag: Tag = sign(&self.0, &words(node, object));
        tag.as_ref().iter().fold(String::new(), |mut text, byte| {
            // Writing to a text does not fail.
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        })
    }

    /// Returns whether `ticket` is that of `object` for `node`; takes the same time whatever is wrong with it.
    pub fn is_right(&self, node: &str, object: &str, ticket: &str) -> bool {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let pairs = ticket.as_bytes().chunks(2).map(|pair| match *pair {
            [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
            _ => None,
        });
        let bytes: Option<Vec<u8>> = pairs.collect();
        bytes.is_some_and(|bytes| verify(&self.0, &words(node, object), &bytes).is_ok())
    }
}

/// Returns the key that follows from `secret`, and from which `secret` does not.
pub fn derived(secret: &[u8]) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, secret), PURPOSE).as_ref().to_vec()
}

/// Returns both as bytes that no other pair has: names of Kubernetes have no NUL.
fn words(node: &str, object: &str) -> Vec<u8> {
    [node.as_bytes(), &[0], object.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_of_one_node_one_object_and_one_key() {
        let tickets = Tickets::new(b"key");
        let ticket = tickets.of("n1", "MonitoringPipeline a/jobs");
        assert_eq!(ticket.len(), 64);
        assert!(tickets.is_right("n1", "MonitoringPipeline a/jobs", &ticket));
        assert!(Tickets::under(&derived(b"key")).is_right("n1", "MonitoringPipeline a/jobs", &ticket), "kept");
        assert!(Tickets::new(b"key").is_right("n1", "MonitoringPipeline a/jobs", &ticket), "another replica");
        assert!(!tickets.is_right("n2", "MonitoringPipeline a/jobs", &ticket));
        assert!(!tickets.is_right("n1", "MonitoringPipeline b/jobs", &ticket));
        assert!(!tickets.is_right("n1\0MonitoringPipeline", "a/jobs", &ticket));
        assert!(!Tickets::new(b"other").is_right("n1", "MonitoringPipeline a/jobs", &ticket));
    }

    #[test]
    fn a_node_is_given_those_of_its_pipelines() {
        let tickets = Tickets::new(b"key");
        let labels: [Arc<str>; 3] =
            ["Backend a/out", "ClusterMonitoringPipeline all", "MonitoringPipeline a/jobs"].map(Arc::from);
        let given = tickets.of_node(&"n".into()).of(labels.iter());
        assert_eq!(given.keys().collect::<Vec<_>>(), ["ClusterMonitoringPipeline all", "MonitoringPipeline a/jobs"]);
        assert!(given.iter().all(|(label, ticket)| tickets.is_right("n", label, ticket)));
    }

    #[test]
    fn what_is_no_ticket_is_refused() {
        let tickets = Tickets::new(b"key");
        let ticket = tickets.of("n", "o");
        for wrong in ["", "0", "zz", &ticket[1..], &ticket[..62], &format!("{ticket}00"), &ticket.replace('a', "é")] {
            assert!(!tickets.is_right("n", "o", wrong), "{wrong}");
        }
    }
}
