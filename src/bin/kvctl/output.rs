//! How answers are written: text for people and pipes, or one JSON object on a line.
//!
//! Invariants: `get` writes the very bytes of the value, unless standard output is a terminal; a line of a
//! scan is one line whatever bytes are in it.

use std::io::{self, IsTerminal as _, Write as _};

use distribkv::client::{Cause, Error, NodeHealth, NodeSnapshot, NodeStatus};
use distribkv::wire::health::health_check_response::ServingStatus;
use distribkv::wire::v1;
use serde_json::{Map, Value, json};

use crate::base64;
use crate::failure::Failure;
use crate::tables::Table;

/// Writes text to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes an object and a newline.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// Writes a value alone.
pub fn print_value(value: &[u8]) -> Result<(), Failure> {
    print_bytes(value)?;
    if io::stdout().is_terminal() { print("\n") } else { Ok(()) }
}

/// Writes and flushes: whoever reads a pipe waits for it.
fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::Write)
}

/// Bytes on one line: see the help of `kvctl scan`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| escape_char(c, &mut text));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// One character that is UTF-8, as it is or as what stands for it.
fn escape_char(c: char, text: &mut String) {
    match c {
        '\\' => text.push_str("\\\\"),
        '\t' => text.push_str("\\t"),
        '\n' => text.push_str("\\n"),
        c if c.is_control() => {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
        }
        c => text.push(c),
    }
}

/// Puts bytes into an object, under their name where they are UTF-8, else as base64.
fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), base64::encode(bytes).into()),
    };
}

/// A key as an object of its own.
pub fn json_of_key(key: &[u8]) -> Map<String, Value> {
    let mut object = Map::new();
    put_bytes(&mut object, "key", key);
    object
}

/// A key and what is known of it.
pub fn json_of_kv(kv: &v1::KeyValue) -> Value {
    let mut object = json_of_key(&kv.key);
    put_bytes(&mut object, "value", &kv.value);
    object.insert("create_revision".into(), kv.create_revision.into());
    object.insert("mod_revision".into(), kv.mod_revision.into());
    object.insert("version".into(), kv.version.into());
    object.into()
}

/// A key of a scan without its value.
pub fn json_of_kv_without_value(kv: &v1::KeyValue) -> Value {
    let mut value = json_of_kv(kv);
    if let Some(object) = value.as_object_mut() {
        object.remove("value");
    }
    value
}

/// A key and what is known of it, or null.
pub fn json_of_optional(kv: Option<&v1::KeyValue>) -> Value {
    kv.map_or(Value::Null, json_of_kv)
}

/// The revision of an answer.
pub fn revision_of(header: Option<&v1::ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision)
}

/// The name of a health status, as the protocol writes it.
pub fn name_of(status: ServingStatus) -> &'static str {
    status.as_str_name()
}

/// The line of one node's health.
pub fn text_of_health(node: &NodeHealth) -> String {
    match &node.health {
        Ok(status) => format!("{}  {}\n", node.address, name_of(*status)),
        Err(error) => format!("{}  UNREACHABLE  {}\n", node.address, why(error)),
    }
}

/// One node's health as an object.
pub fn json_of_health(node: &NodeHealth) -> Value {
    match &node.health {
        Ok(status) => json!({"address": node.address, "status": name_of(*status)}),
        Err(error) => json!({"address": node.address, "status": "UNREACHABLE", "error": why(error)}),
    }
}

/// The line of what came of one node's tables.
pub fn text_of_snapshot(node: &NodeSnapshot) -> String {
    match &node.outcome {
        Ok(()) => format!("{}  ok\n", node.address),
        Err(error) => format!("{}  failed  {}\n", node.address, why(error)),
    }
}

/// What came of one node's tables as an object.
pub fn json_of_snapshot(node: &NodeSnapshot) -> Value {
    match &node.outcome {
        Ok(()) => json!({"address": node.address, "durable": true}),
        Err(error) => json!({"address": node.address, "durable": false, "error": why(error)}),
    }
}

/// The short reason of an error of one node, whose address stands beside it.
pub fn why(error: &Error) -> String {
    let Some(last) = error.last() else { return error.to_string() };
    let cause = match last.cause {
        Cause::Refused(reason) => reason.to_string(),
        Cause::Unreached => "no connection".to_owned(),
        Cause::Unanswered => "no answer".to_owned(),
    };
    if last.detail.is_empty() { cause } else { format!("{cause}: {}", last.detail) }
}

/// The routing table.
pub fn table_of_shards(response: &v1::ShardsResponse) -> String {
    let mut table = Table::new(&["SHARD", "SLOTS", "LEADER", "ADDRESS", "VOTERS", "LEARNERS"]);
    for shard in &response.shards {
        let address = response.nodes.iter().find(|node| node.node_id == shard.leader);
        table.row(vec![
            shard.shard.to_string(),
            format!("{}-{}", shard.first_slot, shard.last_slot),
            if shard.leader == 0 { "unknown".to_owned() } else { shard.leader.to_string() },
            address.map_or_else(|| "-".to_owned(), |node| node.address.clone()),
            list_of(&shard.voters),
            list_of(&shard.learners),
        ]);
    }
    table.render()
}

/// The routing table as an object.
pub fn json_of_shards(response: &v1::ShardsResponse) -> Value {
    let shards = response.shards.iter().map(|shard| {
        json!({
            "shard": shard.shard, "first_slot": shard.first_slot, "last_slot": shard.last_slot,
            "leader": shard.leader, "voters": shard.voters, "learners": shard.learners,
        })
    });
    let nodes = response.nodes.iter().map(|node| json!({"node": node.node_id, "address": node.address}));
    json!({"shards": shards.collect::<Vec<_>>(), "nodes": nodes.collect::<Vec<_>>()})
}

/// One line for each node.
pub fn table_of_nodes(nodes: &[NodeStatus]) -> String {
    let titles = ["NODE", "ADDRESS", "VERSION", "UPTIME", "LEADS", "REPLICAS", "LANES", "KEYS", "STATE"];
    let mut table = Table::new(&titles);
    for node in nodes {
        let id = node.node.map_or_else(|| "?".to_owned(), |id| id.to_string());
        let mut cells = vec![id, node.address.clone()];
        match &node.status {
            Ok(status) => cells.extend(cells_of_status(status)),
            Err(error) => {
                cells.extend(std::iter::repeat_n("-".to_owned(), 6));
                cells.push(format!("unreachable: {}", why(error)));
            }
        }
        table.row(cells);
    }
    table.render()
}

/// The cells behind node and address.
fn cells_of_status(status: &v1::StatusResponse) -> [String; 7] {
    let leads = status.replicas.iter().filter(|r| r.role() == v1::replica_status::Role::Leader);
    let keys: u64 = status.replicas.iter().map(|replica| replica.keys).fold(0, u64::saturating_add);
    [
        status.version.clone(),
        text_of_uptime(status.uptime_ms),
        leads.count().to_string(),
        status.replicas.len().to_string(),
        status.lanes.len().to_string(),
        keys.to_string(),
        state_of(status),
    ]
}

/// What is wrong with a node, "ok" where nothing is.
fn state_of(status: &v1::StatusResponse) -> String {
    let count = |what: &str, n: usize| (n > 0).then(|| format!("{n} {what}"));
    let recovering = |r: &&v1::ReplicaStatus| r.role() == v1::replica_status::Role::Recovering;
    let wrong = [
        count("lanes poisoned", status.lanes.iter().filter(|lane| lane.poisoned).count()),
        count("lanes with a full disk", status.lanes.iter().filter(|lane| lane.disk_full).count()),
        count("replicas recovering", status.replicas.iter().filter(recovering).count()),
        count("replicas without a leader", status.replicas.iter().filter(|r| r.leader == 0).count()),
        text_of_fetches(status),
    ];
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    if wrong.is_empty() { "ok".to_owned() } else { wrong.join(", ") }
}

/// How far the tables are that a node fetches from others.
fn text_of_fetches(status: &v1::StatusResponse) -> Option<String> {
    let fetches = || status.replicas.iter().filter(|r| r.fetch_bytes_total > 0);
    let sum = |bytes: fn(&v1::ReplicaStatus) -> u64| fetches().map(|r| u128::from(bytes(r))).sum::<u128>();
    let (done, total) = (sum(|r| r.fetch_bytes_done), sum(|r| r.fetch_bytes_total));
    (total > 0).then(|| format!("{} tables fetched to {} %", fetches().count(), done * 100 / total))
}

/// Every replica of every node that answered.
pub fn table_of_replicas(nodes: &[NodeStatus]) -> String {
    let mut table = Table::new(&[
        "SHARD", "NODE", "ROLE", "LEADER", "TERM", "LAST", "COMMIT", "APPLIED", "SNAPSHOT", "REVISION",
        "KEYS", "BYTES", "LANE", "DIGEST", "FETCHED",
    ]);
    let answered = nodes.iter().filter_map(|node| node.status.as_ref().ok());
    let mut replicas: Vec<_> = answered
        .flat_map(|status| status.replicas.iter().map(move |r| (r.shard, status.node_id, r)))
        .collect();
    replicas.sort_by_key(|(shard, node, _)| (*shard, *node));
    for (shard, node, r) in replicas {
        let mut cells = vec![shard.to_string(), node.to_string(), role_of(r), r.leader.to_string()];
        let numbers = [r.term, r.last_index, r.commit_index, r.applied_index, r.snapshot_index];
        cells.extend(numbers.iter().chain(&[r.revision, r.keys, r.bytes]).map(u64::to_string));
        cells.push(r.lane.to_string());
        cells.push(format!("{:016x}", r.state_digest));
        cells.push(match r.fetch_bytes_total {
            0 => "-".to_owned(),
            total => format!("{}/{total}", r.fetch_bytes_done),
        });
        table.row(cells);
    }
    table.render()
}

/// Every lane of every node that answered.
pub fn table_of_lanes(nodes: &[NodeStatus]) -> String {
    let titles = [
        "NODE",
        "LANE",
        "CORE",
        "LOG BYTES",
        "SEGMENTS",
        "LAST WRITE",
        "OLDEST PENDING",
        "DAMAGED",
        "REPAIRED",
    ];
    let mut table = Table::new(&titles);
    for status in nodes.iter().filter_map(|node| node.status.as_ref().ok()) {
        for lane in &status.lanes {
            table.row(vec![
                status.node_id.to_string(),
                lane.lane.to_string(),
                lane.core.to_string(),
                lane.log_bytes.to_string(),
                lane.segments.to_string(),
                format!("{} us", lane.last_write_us),
                format!("{} us", lane.oldest_pending_us),
                lane.damaged_total.to_string(),
                lane.repaired_total.to_string(),
            ]);
        }
    }
    table.render()
}

/// One node's status as an object, with everything that it said.
pub fn json_of_status(node: &NodeStatus) -> Value {
    let id = node.node.map(|id| id.0);
    let status = match &node.status {
        Ok(status) => status,
        Err(error) => {
            return json!({"node": id, "address": node.address, "reachable": false, "error": why(error)});
        }
    };
    json!({
        "node": id, "address": node.address, "reachable": true, "version": status.version,
        "profile": status.profile, "cluster_id": status.cluster_id, "uptime_ms": status.uptime_ms,
        "replicas": status.replicas.iter().map(json_of_replica).collect::<Vec<_>>(),
        "lanes": status.lanes.iter().map(json_of_lane).collect::<Vec<_>>(),
    })
}

/// One replica as an object. The digest is text: JSON's numbers hold 53 bits.
fn json_of_replica(r: &v1::ReplicaStatus) -> Value {
    json!({
        "shard": r.shard, "role": role_of(r), "leader": r.leader, "term": r.term, "last_index": r.last_index,
        "commit_index": r.commit_index, "applied_index": r.applied_index, "snapshot_index": r.snapshot_index,
        "revision": r.revision, "keys": r.keys, "bytes": r.bytes, "lane": r.lane,
        "state_digest": format!("{:016x}", r.state_digest),
        "fetch_bytes_done": r.fetch_bytes_done, "fetch_bytes_total": r.fetch_bytes_total,
    })
}

/// One lane as an object.
fn json_of_lane(lane: &v1::LaneStatus) -> Value {
    json!({
        "lane": lane.lane, "core": lane.core, "log_bytes": lane.log_bytes, "segments": lane.segments,
        "last_write_us": lane.last_write_us, "oldest_pending_us": lane.oldest_pending_us,
        "poisoned": lane.poisoned, "disk_full": lane.disk_full,
        "damaged_total": lane.damaged_total, "repaired_total": lane.repaired_total,
    })
}

/// The role in small letters.
fn role_of(replica: &v1::ReplicaStatus) -> String {
    replica.role().as_str_name().to_lowercase()
}

/// Ids with commas between them.
fn list_of(ids: &[u32]) -> String {
    if ids.is_empty() {
        return "-".to_owned();
    }
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// A duration in its two largest units.
fn text_of_uptime(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        (_, _, _) => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_bytes_stay_on_one_line() {
        assert_eq!(escape(b"a\tb\\c\nd\r\x00\xff\xc3\xa9"), "a\\tb\\\\c\\nd\\x0d\\x00\\xff\u{e9}");
        assert_eq!(escape("\u{85}".as_bytes()), "\\xc2\\x85");
    }

    #[test]
    fn bytes_in_json_say_how_they_are_written() {
        assert_eq!(Value::from(json_of_key(b"k")), json!({"key": "k"}));
        assert_eq!(Value::from(json_of_key(b"\xff")), json!({"key_base64": "/w=="}));
    }

    #[test]
    fn a_table_on_its_way_is_shown() {
        let here = v1::ReplicaStatus { leader: 1, ..v1::ReplicaStatus::default() };
        let coming = v1::ReplicaStatus { fetch_bytes_done: 3 << 40, fetch_bytes_total: 4 << 40, ..here };
        let said = |replicas| {
            let status = v1::StatusResponse { replicas, ..v1::StatusResponse::default() };
            let node = NodeStatus { node: None, address: "a:1".into(), status: Ok(status) };
            let json = json_of_status(&node)["replicas"][0].clone();
            let facts = [&json["fetch_bytes_done"], &json["fetch_bytes_total"]].map(Value::as_u64);
            (table_of_nodes(std::slice::from_ref(&node)), table_of_replicas(&[node]), facts)
        };
        let (nodes, replicas, facts) = said(vec![coming]);
        assert!(nodes.contains("1 tables fetched to 75 %"), "{nodes}");
        assert!(replicas.contains("FETCHED\n") && replicas.contains("  3298534883328/4398046511104\n"));
        assert_eq!(facts, [Some(3 << 40), Some(4 << 40)]);
        let (nodes, replicas, facts) = said(vec![here]);
        assert!(nodes.ends_with("ok\n") && replicas.ends_with("  -\n"), "{nodes}{replicas}");
        assert_eq!(facts, [Some(0), Some(0)]);
    }

    #[test]
    fn uptimes_have_two_units() {
        let texts = [59_999, 60_000, 3_600_000, 90_000_000].map(text_of_uptime);
        assert_eq!(texts, ["59s", "1m00s", "1h00m", "1d01h"]);
    }
}
