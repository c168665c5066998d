//! What each command asks of the client, and what it prints.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use distribkv::client::{Clerk, Error, Options, range_of_prefix};
use distribkv::ids::{NodeId, ShardId};
use distribkv::wire::health::health_check_response::ServingStatus;
use distribkv::wire::v1;
use serde_json::{Value, json};

use crate::args::{Args, Command, Format};
use crate::backup;
use crate::failure::Failure;
use crate::output::{self, escape, json_of_optional, print, print_json, revision_of};
use crate::stages;
use crate::txn_file;

/// The most that is read of standard input or of a file: the contract's largest message.
const INPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long the end waits for sessions to be closed; those that are not expire by themselves.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Does what the command line says.
pub async fn run(args: Args) -> Result<(), Failure> {
    let options = Options { timeout: args.timeout, ..Options::default() };
    let clerk = Clerk::connect_with(args.endpoints, options).map_err(Failure::Endpoint)?;
    let result = Run { clerk: clerk.clone(), format: args.output }.run(args.command).await;
    // What was asked for is done or has failed; that the session lives on for its ttl harms nobody.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, clerk.close()).await;
    result
}

/// One run of the program.
struct Run {
    clerk: Clerk,
    format: Format,
}

/// How much a status tells as text; as JSON it tells everything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Nodes,
    Everything,
}

impl Run {
    /// Hands the command to its function.
    async fn run(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Put { key, value, if_mod_revision, previous } => {
                let (key, value) = (key.into_vec().into(), input(value)?);
                let request =
                    v1::PutRequest { id: None, key, value, if_mod_revision, return_previous: previous };
                self.put(request).await
            }
            Command::Get { key, stale } => {
                let consistency = if stale { v1::Consistency::Stale } else { v1::Consistency::Linearizable };
                self.get(key.into_vec().into(), consistency).await
            }
            Command::Append { key, value, if_mod_revision } => {
                let (key, value) = (key.into_vec().into(), input(value)?);
                self.append(v1::AppendRequest { id: None, key, value, if_mod_revision }).await
            }
            Command::Delete { key, if_mod_revision, previous } => {
                let key = key.into_vec().into();
                self.delete(v1::DeleteRequest { id: None, key, if_mod_revision, return_previous: previous })
                    .await
            }
            Command::Scan { prefix, start, end, limit, keys_only } => {
                let bytes = |key: Option<OsString>| Bytes::from(key.unwrap_or_default().into_vec());
                let (start, end) = match prefix {
                    Some(prefix) => range_of_prefix(&prefix.into_vec()),
                    None => (bytes(start), bytes(end)),
                };
                self.scan(v1::ScanRequest { start, end, limit, keys_only, ..Default::default() }).await
            }
            Command::Txn { file } => self.txn(file).await,
            Command::Status { all: true } => self.status(Detail::Everything).await,
            Command::Status { all: false } => self.status(Detail::Nodes).await,
            Command::Stages { interval } => self.stages(interval).await,
            Command::Shards => self.shards().await,
            Command::Health { service, watch: true } => self.watch(&service).await,
            Command::Health { service, watch: false } => self.health(&service).await,
            Command::Snapshot { shards } => self.snapshot(shards).await,
            Command::Backup { file } => self.backup(&file).await,
            Command::Transfer { shard, node } => self.transfer(ShardId(shard), node.map(NodeId)).await,
        }
    }

    /// Writes a key, and says at which revision; or that the comparison failed, and at what.
    async fn put(&self, request: v1::PutRequest) -> Result<(), Failure> {
        let (key, wants_previous) = (request.key.clone(), request.return_previous);
        let response = self.clerk.put_with(request).await?;
        let previous = response.previous.as_ref();
        let (revision, version) = (revision_of(response.header.as_ref()), response.version);
        self.print_or(
            || {
                let mut line = format!("ok revision={revision} version={version}\n");
                if wants_previous {
                    line.push_str(&text_of_previous(previous));
                }
                if response.succeeded { line } else { String::new() }
            },
            || {
                json!({"succeeded": response.succeeded, "revision": revision, "version": version,
                       "previous": json_of_optional(previous)})
            },
        )?;
        let found = previous.map_or(0, |kv| kv.mod_revision);
        if response.succeeded { Ok(()) } else { Err(Failure::Compared(key.to_vec(), Some(found))) }
    }

    /// Prints a value, or says that there is none.
    async fn get(&self, key: Bytes, consistency: v1::Consistency) -> Result<(), Failure> {
        let request = v1::GetRequest { key: key.clone(), consistency: consistency.into() };
        let response = self.clerk.get_with(request).await?;
        match (&response.kv, self.format) {
            (Some(kv), Format::Text) => output::print_value(&kv.value),
            (Some(kv), Format::Json) => print_json(&output::json_of_kv(kv)),
            (None, Format::Text | Format::Json) => Err(Failure::NotFound(key.to_vec())),
        }
    }

    /// Appends to a key. The contract does not tell what a failed comparison was made with.
    async fn append(&self, request: v1::AppendRequest) -> Result<(), Failure> {
        let key = request.key.clone();
        let response = self.clerk.append_with(request).await?;
        let (revision, version) = (revision_of(response.header.as_ref()), response.version);
        let (succeeded, length) = (response.succeeded, response.length);
        self.print_or(
            || match succeeded {
                true => format!("ok revision={revision} version={version} length={length}\n"),
                false => String::new(),
            },
            || json!({"succeeded": succeeded, "revision": revision, "version": version, "length": length}),
        )?;
        if succeeded { Ok(()) } else { Err(Failure::Compared(key.to_vec(), None)) }
    }

    /// Removes a key; that there was none is a no.
    async fn delete(&self, request: v1::DeleteRequest) -> Result<(), Failure> {
        let (key, wants_previous) = (request.key.clone(), request.return_previous);
        let response = self.clerk.delete_with(request).await?;
        let previous = response.previous.as_ref();
        let revision = revision_of(response.header.as_ref());
        let done = response.succeeded && response.existed;
        self.print_or(
            || match (done, wants_previous) {
                (true, true) => format!("ok revision={revision}\n{}", text_of_previous(previous)),
                (true, false) => format!("ok revision={revision}\n"),
                (false, _) => String::new(),
            },
            || {
                json!({"succeeded": response.succeeded, "existed": response.existed, "revision": revision,
                       "previous": json_of_optional(previous)})
            },
        )?;
        match (response.succeeded, response.existed) {
            (true, true) => Ok(()),
            (true, false) => Err(Failure::NotFound(key.to_vec())),
            (false, _) => Err(Failure::Compared(key.to_vec(), previous.map(|kv| kv.mod_revision))),
        }
    }

    /// Prints part after part, as they come.
    async fn scan(&self, request: v1::ScanRequest) -> Result<(), Failure> {
        let keys_only = request.keys_only;
        let mut scan = self.clerk.scan(request);
        while let Some(kvs) = scan.next().await? {
            let lines = kvs.iter().map(|kv| match (self.format, keys_only) {
                (Format::Text, true) => format!("{}\n", escape(&kv.key)),
                (Format::Text, false) => format!("{}\t{}\n", escape(&kv.key), escape(&kv.value)),
                (Format::Json, true) => format!("{}\n", output::json_of_kv_without_value(kv)),
                (Format::Json, false) => format!("{}\n", output::json_of_kv(kv)),
            });
            print(&lines.collect::<String>())?;
        }
        Ok(())
    }

    /// Applies the transaction of a file, and prints what its branch brought. The other branch is a no.
    async fn txn(&self, file: PathBuf) -> Result<(), Failure> {
        let text = if file == Path::new("-") { read_stdin()? } else { read_file(&file)? };
        let request = txn_file::parse(&text).map_err(|fault| Failure::Txn(file, fault))?;
        let response = self.clerk.txn(request).await?;
        let branch = if response.succeeded { "then" } else { "otherwise" };
        let revision = revision_of(response.header.as_ref());
        self.print_or(
            || {
                let lines = response.results.iter().map(text_of_result);
                format!("{branch} revision={revision}\n{}", lines.collect::<String>())
            },
            || {
                let results: Vec<Value> = response.results.iter().map(json_of_result).collect();
                json!({"succeeded": response.succeeded, "revision": revision, "results": results})
            },
        )?;
        if response.succeeded { Ok(()) } else { Err(Failure::No) }
    }

    /// Prints what the nodes say. Some that are silent are told and are no failure; all of them are.
    async fn status(&self, detail: Detail) -> Result<(), Failure> {
        let nodes = self.clerk.status().await;
        match self.format {
            Format::Json => nodes.iter().try_for_each(|node| print_json(&output::json_of_status(node)))?,
            Format::Text => print(&output::table_of_nodes(&nodes))?,
        }
        if nodes.iter().all(|node| node.status.is_err()) {
            return Err(Failure::NobodyAnswered);
        }
        if detail == Detail::Everything && self.format == Format::Text {
            print(&format!("\n{}\n{}", output::table_of_replicas(&nodes), output::table_of_lanes(&nodes)))?;
        }
        Ok(())
    }

    /// Prints where the time of requests went meanwhile.
    async fn stages(&self, interval: Duration) -> Result<(), Failure> {
        let before = self.clerk.status().await;
        tokio::time::sleep(interval).await;
        let after = self.clerk.status().await;
        if after.iter().all(|node| node.status.is_err()) {
            return Err(Failure::NobodyAnswered);
        }
        for reason in stages::left_out(&before, &after) {
            eprintln!("kvctl: {reason}");
        }
        let spent = stages::between(&before, &after);
        match self.format {
            Format::Json => spent.iter().try_for_each(|stage| print_json(&stages::json_of(stage))),
            Format::Text => print(&stages::table_of(&spent)),
        }
    }

    /// Prints the routing table.
    async fn shards(&self) -> Result<(), Failure> {
        let response = self.clerk.shards().await?;
        self.print_or(|| output::table_of_shards(&response), || output::json_of_shards(&response))
    }

    /// Prints the health of each endpoint. All of them serving is a yes.
    async fn health(&self, service: &str) -> Result<(), Failure> {
        let nodes = self.clerk.health(service).await;
        for node in &nodes {
            self.print_or(|| output::text_of_health(node), || output::json_of_health(node))?;
        }
        if nodes.iter().all(|node| node.health.is_err()) {
            return Err(Failure::NobodyAnswered);
        }
        let serving = nodes.iter().all(|node| matches!(node.health, Ok(ServingStatus::Serving)));
        if serving { Ok(()) } else { Err(Failure::No) }
    }

    /// Until it is interrupted.
    async fn watch(&self, service: &str) -> Result<(), Failure> {
        let mut watch = self.clerk.health_watch(service);
        while let Some(node) = watch.next().await {
            self.print_or(|| output::text_of_health(&node), || output::json_of_health(&node))?;
        }
        Err(Failure::NobodyAnswered)
    }

    /// Hands a shard over, and says who leads it.
    async fn transfer(&self, shard: ShardId, node: Option<NodeId>) -> Result<(), Failure> {
        let leader = self.clerk.transfer(shard, node).await?;
        let name = leader.map_or_else(|| "unknown".to_owned(), |leader| leader.to_string());
        self.print_or(
            || format!("ok shard={shard} leader={name}\n"),
            || json!({"shard": shard.0, "leader": leader.map(|leader| leader.0)}),
        )
    }

    /// Has every endpoint make tables, and says what came of it. All of them durable is a yes.
    async fn snapshot(&self, shards: Vec<u32>) -> Result<(), Failure> {
        let shards: Vec<ShardId> = shards.into_iter().map(ShardId).collect();
        let nodes = self.clerk.snapshot(&shards).await;
        let refused = nodes.iter().find_map(|node| match &node.outcome {
            Err(error @ Error::ChangeRequest { .. }) => Some(error.clone()),
            Ok(()) | Err(_) => None,
        });
        if let Some(error) = refused {
            return Err(Failure::Client(error));
        }
        for node in &nodes {
            self.print_or(|| output::text_of_snapshot(node), || output::json_of_snapshot(node))?;
        }
        if nodes.iter().all(|node| node.outcome.is_err()) {
            return Err(Failure::NobodyAnswered);
        }
        if nodes.iter().all(|node| node.outcome.is_ok()) { Ok(()) } else { Err(Failure::No) }
    }

    /// Writes a backup, and says what is in it: on standard error, where the backup is on standard output.
    async fn backup(&self, file: &Path) -> Result<(), Failure> {
        let summary = backup::backup(&self.clerk, file).await?;
        let text = match self.format {
            Format::Text => backup::text_of(&summary),
            Format::Json => format!("{}\n", backup::json_of(&summary, file)),
        };
        if file != Path::new("-") {
            return print(&text);
        }
        eprint!("{text}");
        Ok(())
    }

    /// Prints in the format that was asked for.
    fn print_or(&self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&text()),
            Format::Json => print_json(&json()),
        }
    }
}

/// The line of a value that is no more.
fn text_of_previous(previous: Option<&v1::KeyValue>) -> String {
    previous
        .map_or_else(|| "no previous value\n".to_owned(), |kv| format!("previous={}\n", escape(&kv.value)))
}

/// The line of one operation of a transaction.
fn text_of_result(result: &v1::OperationResult) -> String {
    use v1::operation_result::Result as Of;
    match &result.result {
        Some(Of::Get(v1::GetResponse { kv: Some(kv), .. })) => {
            format!("get {}\t{} mod_revision={}\n", escape(&kv.key), escape(&kv.value), kv.mod_revision)
        }
        Some(Of::Get(_)) => "get: no such key\n".to_owned(),
        Some(Of::Put(put)) => format!("put version={}\n", put.version),
        Some(Of::Append(append)) => format!("append version={} length={}\n", append.version, append.length),
        Some(Of::Delete(delete)) if delete.existed => "delete\n".to_owned(),
        Some(Of::Delete(_)) => "delete: no such key\n".to_owned(),
        Some(Of::Txn(_)) | None => "nothing\n".to_owned(),
    }
}

/// One operation of a transaction as an object, under its name.
fn json_of_result(result: &v1::OperationResult) -> Value {
    use v1::operation_result::Result as Of;
    match &result.result {
        Some(Of::Get(get)) => json!({"get": json_of_optional(get.kv.as_ref())}),
        Some(Of::Put(put)) => {
            json!({"put": {"version": put.version, "previous": json_of_optional(put.previous.as_ref())}})
        }
        Some(Of::Append(append)) => json!({"append": {"version": append.version, "length": append.length}}),
        Some(Of::Delete(delete)) => {
            let previous = json_of_optional(delete.previous.as_ref());
            json!({"delete": {"existed": delete.existed, "previous": previous}})
        }
        Some(Of::Txn(_)) | None => Value::Null,
    }
}

/// A value of the command line: itself, or standard input for `-`.
fn input(value: OsString) -> Result<Bytes, Failure> {
    if value == "-" { read_stdin().map(Bytes::from) } else { Ok(value.into_vec().into()) }
}

/// All of standard input.
fn read_stdin() -> Result<Vec<u8>, Failure> {
    read(std::io::stdin().lock(), Path::new("standard input"))
}

/// All of a file.
fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::Read(path.to_owned(), error))?;
    read(file, path)
}

/// All of it, if that is not too much.
fn read(from: impl Read, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = from.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes);
    match read {
        Err(error) => Err(Failure::Read(path.to_owned(), error)),
        Ok(len) if len as u64 > INPUT_BYTES_MAX => Err(Failure::TooLong(path.to_owned(), INPUT_BYTES_MAX)),
        Ok(_) => Ok(bytes),
    }
}
