//! The kinds of the API group, as names: what programs that meet objects of all of them tell apart.

/// The kinds of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Backend`.
    Backend,
    /// `ClusterBackend`.
    ClusterBackend,
    /// `MonitoringPipeline`.
    MonitoringPipeline,
    /// `ClusterMonitoringPipeline`.
    ClusterMonitoringPipeline,
}

impl Kind {
    /// Returns its name, as manifests write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backend => "Backend",
            Self::ClusterBackend => "ClusterBackend",
            Self::MonitoringPipeline => "MonitoringPipeline",
            Self::ClusterMonitoringPipeline => "ClusterMonitoringPipeline",
        }
    }

    /// Returns its name in paths.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Backend => "backends",
            Self::ClusterBackend => "clusterbackends",
            Self::MonitoringPipeline => "monitoringpipelines",
            Self::ClusterMonitoringPipeline => "clustermonitoringpipelines",
        }
    }

    /// Returns the kind of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Every kind.
    pub const ALL: [Self; 4] =
        [Self::Backend, Self::ClusterBackend, Self::MonitoringPipeline, Self::ClusterMonitoringPipeline];

    /// Returns whether objects of it have no namespace.
    pub fn is_of_the_cluster(self) -> bool {
        matches!(self, Self::ClusterBackend | Self::ClusterMonitoringPipeline)
    }

    /// Returns whether it is one of the pipelines.
    pub fn is_pipeline(self) -> bool {
        matches!(self, Self::MonitoringPipeline | Self::ClusterMonitoringPipeline)
    }
}
