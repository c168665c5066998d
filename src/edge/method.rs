//! Which call a path names.
//!
//! It deliberately knows no messages: what a call takes and answers is its service's.

/// The full names of the services, as health and reflection speak of them.
pub const SERVICES: [&str; 7] = [
    "distribkv.v1.KV",
    "distribkv.v1.Session",
    "distribkv.v1.Cluster",
    "distribkv.v1.Maintenance",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Which services an edge answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    /// All of [`SERVICES`].
    All,
    /// Health and reflection: for what has no store behind it.
    HealthAlone,
}

impl Services {
    /// Whether the service of this full name is answered.
    #[must_use]
    pub fn has(self, service: &str) -> bool {
        match self {
            Self::All => SERVICES.contains(&service),
            Self::HealthAlone => SERVICES.contains(&service) && service.starts_with("grpc."),
        }
    }
}

/// One method of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// One message in, one out.
    Unary(Unary),
    /// `distribkv.v1.KV/Scan`.
    Scan,
    /// `distribkv.v1.KV/Pipeline`.
    Pipeline,
    /// `distribkv.v1.Maintenance/Backup`.
    Backup,
    /// `grpc.health.v1.Health/Watch`.
    HealthWatch,
    /// `grpc.reflection.v1.ServerReflection/ServerReflectionInfo`, and v1alpha's, which is the same on the
    /// wire.
    Reflection,
}

/// A method with one message in and one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    /// It asks one shard.
    Shard(ShardCall),
    /// `distribkv.v1.Cluster/Status`.
    ClusterStatus,
    /// `distribkv.v1.Cluster/Shards`.
    ClusterShards,
    /// `distribkv.v1.Maintenance/Snapshot`.
    Snapshot,
    /// `grpc.health.v1.Health/Check`.
    HealthCheck,
    /// `grpc.health.v1.Health/List`.
    HealthList,
}

/// A method that asks one shard, wherever it is led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShardCall {
    /// `distribkv.v1.KV/Get`.
    Get,
    /// `distribkv.v1.KV/Put`.
    Put,
    /// `distribkv.v1.KV/Append`.
    Append,
    /// `distribkv.v1.KV/Delete`.
    Delete,
    /// `distribkv.v1.KV/Txn`.
    Txn,
    /// `distribkv.v1.Session/Open`.
    SessionOpen,
    /// `distribkv.v1.Session/KeepAlive`.
    SessionKeepAlive,
    /// `distribkv.v1.Session/Close`.
    SessionClose,
    /// `distribkv.v1.Maintenance/TransferLeadership`.
    TransferLeadership,
}

impl Method {
    /// The method of a path, where the services have it.
    pub(super) fn of_path(path: &str, services: Services) -> Option<Self> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        if !services.has(service) {
            return None;
        }
        match service {
            "distribkv.v1.KV" => Self::of_kv(name),
            "distribkv.v1.Session" => Self::of_session(name),
            "distribkv.v1.Cluster" => Self::of_cluster(name),
            "distribkv.v1.Maintenance" => Self::of_maintenance(name),
            "grpc.health.v1.Health" => Self::of_health(name),
            _ => (name == "ServerReflectionInfo").then_some(Self::Reflection),
        }
    }

    fn asks(call: ShardCall) -> Self {
        Self::Unary(Unary::Shard(call))
    }

    fn of_kv(name: &str) -> Option<Self> {
        match name {
            "Get" => Some(Self::asks(ShardCall::Get)),
            "Put" => Some(Self::asks(ShardCall::Put)),
            "Append" => Some(Self::asks(ShardCall::Append)),
            "Delete" => Some(Self::asks(ShardCall::Delete)),
            "Txn" => Some(Self::asks(ShardCall::Txn)),
            "Scan" => Some(Self::Scan),
            "Pipeline" => Some(Self::Pipeline),
            _ => None,
        }
    }

    fn of_session(name: &str) -> Option<Self> {
        match name {
            "Open" => Some(Self::asks(ShardCall::SessionOpen)),
            "KeepAlive" => Some(Self::asks(ShardCall::SessionKeepAlive)),
            "Close" => Some(Self::asks(ShardCall::SessionClose)),
            _ => None,
        }
    }

    fn of_cluster(name: &str) -> Option<Self> {
        match name {
            "Status" => Some(Self::Unary(Unary::ClusterStatus)),
            "Shards" => Some(Self::Unary(Unary::ClusterShards)),
            _ => None,
        }
    }

    fn of_maintenance(name: &str) -> Option<Self> {
        match name {
            "TransferLeadership" => Some(Self::asks(ShardCall::TransferLeadership)),
            "Snapshot" => Some(Self::Unary(Unary::Snapshot)),
            "Backup" => Some(Self::Backup),
            _ => None,
        }
    }

    fn of_health(name: &str) -> Option<Self> {
        match name {
            "Check" => Some(Self::Unary(Unary::HealthCheck)),
            "List" => Some(Self::Unary(Unary::HealthList)),
            "Watch" => Some(Self::HealthWatch),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    /// Every method of the contract has a path here, and nothing else has one.
    #[test]
    fn every_method_of_the_descriptors_is_known() {
        let set =
            prost_types::FileDescriptorSet::decode(crate::wire::DESCRIPTORS).expect("the build made it");
        let mut services = Vec::new();
        for file in &set.file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    let path = format!("/{service_name}/{}", method.name());
                    assert!(Method::of_path(&path, Services::All).is_some(), "{path}");
                    let is_health = service_name.starts_with("grpc.");
                    assert_eq!(Method::of_path(&path, Services::HealthAlone).is_some(), is_health, "{path}");
                }
                services.push(service_name);
            }
        }
        services.sort_unstable();
        let mut known = SERVICES.map(str::to_owned).to_vec();
        known.sort_unstable();
        assert_eq!(services, known);
        for path in ["", "/", "//", "/distribkv.v1.KV", "/distribkv.v1.KV/", "/distribkv.v1.KV/get", "/x/Get"]
        {
            assert_eq!(Method::of_path(path, Services::All), None, "{path}");
        }
    }
}
