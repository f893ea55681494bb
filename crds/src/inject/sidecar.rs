//! The sidecar: `spillway-agent run`, and the two volumes that it alone mounts.
//!
//! # Guarantees
//! - It passes the restricted Pod Security Standard whatever the pod says of security: nobody's root, no privilege, no capability,
//!   a read-only root, no volume but an `emptyDir` and a projected one.
//! - It decides neither readiness nor start: only whether the process makes progress is probed.
//! - It keeps within a part of its volume, over whose size a kubelet evicts the pod.
//! - It holds two tokens that are of use at our operator and at the agent of the node alone, each for an hour. They lie where an
//!   API server would else mount the token of the pod's own account, so that it mounts none.
//!
//! # Limits
//! No limit of ephemeral storage: a kubelet would hold the whole pod against it, and evict the application.

use serde_json::{Value, json};

use super::quantity::Quantity;
use super::tuning::Tuning;
use super::{AUTHORITIES, Amounts, Settings};

/// The name of the container.
pub const CONTAINER: &str = "spillway";

/// The name of the volume of what is not delivered yet.
pub(super) const SPOOL: &str = "spillway-spool";

/// The name of the volume with tokens and authorities.
pub(super) const IDENTITY: &str = "spillway-identity";

/// The names of the volumes.
pub(super) const VOLUMES: [&str; 2] = [SPOOL, IDENTITY];

/// Where applications of the pod send events.
pub(super) const URL: &str = "http://127.0.0.1:8411";

/// The ports that it listens at, of TCP: two of them at the loopback address, the last at all addresses of the pod.
pub const PORTS: [u16; 3] = [8411, 8412, 8413];

/// The least volume of what is not delivered yet.
pub(super) const SPOOL_MIN: Quantity = Quantity::mebibytes(64);

/// How much of it the sidecar takes, in percent: a kubelet looks from time to time, and counts what is being written, too.
const SPOOL_PERCENT: u32 = 80;

/// Where an API server mounts the token of a pod's account, unless something is there.
const IDENTITY_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where what is not delivered yet is kept.
const SPOOL_PATH: &str = "/var/lib/spillway";

/// How long a token is of use; the kubelet renews it before.
const TOKEN_SECONDS: u32 = 3600;

/// Returns the container.
pub(super) fn container(settings: &Settings, tuning: Tuning, resources: Option<Value>) -> Value {
    let destinations = [("allow", &settings.destinations.allow), ("deny", &settings.destinations.deny)];
    let destinations = destinations.into_iter().filter(|(_, texts)| !texts.is_empty());
    let mut container = json!({
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "args": [
            "run",
            format!("--operator={}", settings.operator),
            format!("--operator-ca={IDENTITY_PATH}/ca.crt"),
            format!("--operator-token={IDENTITY_PATH}/operator"),
            format!("--node-agent={}", settings.node_agent),
            format!("--node-agent-token={IDENTITY_PATH}/node-agent"),
            format!("--data-dir={SPOOL_PATH}/agent"),
            format!("--data-bytes-max={}", settings.spool.percent_in_bytes(SPOOL_PERCENT)),
            "--pod-logs=off",
            "--http=127.0.0.1:8411",
            "--admin=127.0.0.1:8412",
            // Of IPv4 as well, and of it alone where a node has no IPv6.
            "--metrics=[::]:8413",
            "--log-format=json",
            format!("--log-level={}", tuning.log_level),
        ],
        "env": [
            {"name": "SPILLWAY_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": 8413},
            "initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": settings.run_as_user,
            "runAsNonRoot": true,
            "runAsUser": settings.run_as_user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": SPOOL, "mountPath": SPOOL_PATH},
            {"name": IDENTITY, "mountPath": IDENTITY_PATH, "readOnly": true},
        ],
    });
    if let Some(args) = container["args"].as_array_mut() {
        args.extend(destinations.map(|(what, texts)| format!("--{what}-destinations={}", texts.join(",")).into()));
    }
    if let Some(resources) = resources {
        container["resources"] = resources;
    }
    container
}

/// Returns the volumes.
pub(super) fn volumes(settings: &Settings) -> [Value; 2] {
    let token = |audience: &str, path: &str| json!({"serviceAccountToken": {"audience": audience, "expirationSeconds": TOKEN_SECONDS, "path": path}});
    let field = json!({"fieldPath": format!("metadata.annotations['{AUTHORITIES}']")});
    let authorities = json!({"downwardAPI": {"items": [{"path": "ca.crt", "fieldRef": field}]}});
    let sources = [token("spillway", "operator"), token("spillway-agent", "node-agent"), authorities];
    [
        json!({"name": SPOOL, "emptyDir": {"sizeLimit": settings.spool.in_bytes()}}),
        // Readable for all who have it mounted, which is the sidecar, whatever user it is.
        json!({"name": IDENTITY, "projected": {"defaultMode": 0o444, "sources": sources}}),
    ]
}

/// Returns amounts as they stand in a manifest.
pub(super) fn amounts(amounts: Amounts) -> Value {
    json!({"cpu": amounts.cpu.in_thousandths(), "memory": amounts.memory.in_bytes()})
}
