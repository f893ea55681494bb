//! The catalogue of reasons: what a verdict and a condition may say in one word. A word keeps its meaning in later versions;
//! `docs/reference/status.md` has a row for each.

/// Declares the reasons with what each means.
macro_rules! reasons {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// Why a condition is what it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$about])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the one that status calls so.
            pub fn of_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.name() == name)
            }

            /// Returns it as status has it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// The spec can be run.
    Accepted,
    /// What it refers to is there and allowed.
    Resolved,
    /// Every agent that counts runs it as it is now.
    Programmed,
    /// No agent tells of a fault of its backends.
    Flowing,
    /// No agent tells of a fault.
    Reachable,
    /// Data can flow.
    Ready,
    /// No node has a pod that it takes something of.
    Idle,
    /// No pipeline refers to it.
    Unused,
    /// It is suspended, as its spec says.
    Suspended,
    /// Not known yet.
    Pending,
    /// Not looked at, since the spec cannot be run.
    NotAccepted,
    /// No version of it can be run, so no agent has one.
    NotServed,
    /// The last good version runs on.
    OlderVersion,
    /// Agents have not taken it yet.
    Waiting,
    /// No agent that is to run it was heard.
    AgentsAbsent,
    /// An agent refused it.
    Refused,
    /// The spec cannot be run.
    Invalid,
    /// The configuration of a node would be too large with it.
    TooLarge,
    /// A Backend that it refers to is not there.
    BackendNotFound,
    /// A Backend that it refers to cannot be used.
    BackendInvalid,
    /// A `ClusterBackend` that it refers to does not grant its namespace.
    RefNotPermitted,
    /// A Secret is not there, or cannot be read.
    SecretNotFound,
    /// A Secret lacks the key.
    SecretKeyNotFound,
    /// A value of a Secret is larger than what is served.
    SecretTooLarge,
    /// Attempts to send fail, others are made.
    BackendRetrying,
    /// So many attempts failed that the backend is left alone for a while.
    BackendUnreachable,
    /// Agents may not connect to the address of the backend.
    BackendForbidden,
    /// Pods asked for a sidecar and have none.
    SidecarsMissing,
    /// Pods have a sidecar of another version or pipeline.
    SidecarsOutdated,
    /// Pods that were made anew came back without what they asked for.
    SidecarsNotMended,
}

impl Reason {
    /// Returns whether waiting does not help: somebody has to change something.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Invalid | Self::TooLarge | Self::Refused | Self::BackendForbidden)
    }

    /// Returns whether it goes by itself, in a moment.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Pending | Self::Waiting)
    }
}
