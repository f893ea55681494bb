//! Where an agent runs: on a node, by the node's name, or in a pod whose sidecar it is, as `<namespace>/<pod>`. What is given out,
//! heard and told is the same for both, so both have one kind of name; no node has a `/` in its own.

/// Returns the place of the sidecar of a pod.
pub fn of_pod(namespace: &str, pod: &str) -> String {
    format!("{namespace}/{pod}")
}

/// Returns whether a place is a pod with a sidecar.
pub fn is_pod(place: &str) -> bool {
    place.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_never_taken_for_a_node() {
        assert!(is_pod(&of_pod("fab12", "etcher-0")) && !is_pod("node-1.fab12.example.test"));
    }
}
