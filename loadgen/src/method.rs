//! The methods that are called.

/// A method that is called, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `distribkv.v1.KV/Get`
    Get,
    /// `distribkv.v1.KV/Put`
    Put,
    /// `distribkv.v1.KV/Append`
    Append,
    /// `distribkv.v1.KV/Delete`
    Delete,
    /// `distribkv.v1.KV/Put`, with the revision that the key has to have.
    Cas,
    /// `distribkv.v1.KV/Scan`
    Scan,
    /// `grpc.health.v1.Health/Check`
    Check,
    /// `etcdserverpb.KV/Range` of one key
    EtcdGet,
    /// `etcdserverpb.KV/Put`
    EtcdPut,
    /// `etcdserverpb.KV/DeleteRange` of one key
    EtcdDelete,
    /// `etcdserverpb.KV/Txn`: a put, with the revision that the key has to have; else a get.
    EtcdCas,
    /// `etcdserverpb.KV/Range` of keys in order
    EtcdScan,
}

impl Method {
    /// Their paths, and at [`Method::PIPELINE`] that of the stream that carries operations.
    pub const PATHS: [&str; 13] = [
        "/distribkv.v1.KV/Get",
        "/distribkv.v1.KV/Put",
        "/distribkv.v1.KV/Append",
        "/distribkv.v1.KV/Delete",
        "/distribkv.v1.KV/Put",
        "/distribkv.v1.KV/Scan",
        "/grpc.health.v1.Health/Check",
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/DeleteRange",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.KV/Range",
        "/distribkv.v1.KV/Pipeline",
    ];
    /// The place of the Pipeline among the paths.
    pub const PIPELINE: usize = 12;

    /// Its place among the paths.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The method that does the same at etcd, where there is one; the command line refuses the others.
    pub fn at_etcd(self) -> Self {
        match self {
            Self::Get => Self::EtcdGet,
            Self::Put => Self::EtcdPut,
            Self::Delete => Self::EtcdDelete,
            Self::Cas => Self::EtcdCas,
            Self::Scan => Self::EtcdScan,
            Self::Append | Self::Check => self,
            Self::EtcdGet | Self::EtcdPut | Self::EtcdDelete | Self::EtcdCas | Self::EtcdScan => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_where_their_methods_look_for_them() {
        let path = |method: Method| Method::PATHS[method.index()];
        assert_eq!(path(Method::Cas), path(Method::Put));
        assert_eq!(path(Method::Scan), "/distribkv.v1.KV/Scan");
        assert_eq!(path(Method::Check), "/grpc.health.v1.Health/Check");
        assert_eq!(path(Method::EtcdScan), path(Method::EtcdGet));
        assert_eq!(path(Method::EtcdCas), "/etcdserverpb.KV/Txn");
        assert_eq!(Method::PATHS[Method::PIPELINE], "/distribkv.v1.KV/Pipeline");
    }
}
