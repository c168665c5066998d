//! `kvctl stages`: where the time of requests went between two looks at every node.

use distribkv::client::NodeStatus;
use distribkv::wire::v1;
use serde_json::{Value, json};

use crate::tables::Table;

/// What one stage of one core came to between two looks.
#[derive(Debug, PartialEq)]
pub struct Spent {
    node: u32,
    core: u32,
    name: String,
    is_work: bool,
    /// The time between the looks.
    seconds: f64,
    times: u64,
    items: u64,
    total_us: u64,
    /// Times by how long they took, as in the contract.
    buckets: Vec<u64>,
}

/// What the stages came to between two answers of the same nodes. A node that was started anew between them,
/// or did not answer twice, is not among them: see [`left_out`].
pub fn between(before: &[NodeStatus], after: &[NodeStatus]) -> Vec<Spent> {
    let mut spent = Vec::new();
    for now in after.iter().filter_map(|node| node.status.as_ref().ok()) {
        let Some(then) = earlier(before, now) else { continue };
        let seconds = (now.uptime_ms - then.uptime_ms) as f64 / 1000.0;
        for stage in &now.stages {
            let old = same_of(then, stage).cloned().unwrap_or_default();
            spent.push(Spent {
                node: now.node_id,
                core: stage.core,
                name: stage.name.clone(),
                is_work: stage.is_work,
                seconds,
                times: stage.times.saturating_sub(old.times),
                items: stage.items.saturating_sub(old.items),
                total_us: stage.total_us.saturating_sub(old.total_us),
                buckets: differences(&stage.times_by_log2_us, &old.times_by_log2_us),
            });
        }
    }
    spent.sort_by_key(|spent| (spent.node, spent.core));
    spent
}

/// The nodes of which nothing can be said, each with the reason.
pub fn left_out(before: &[NodeStatus], after: &[NodeStatus]) -> Vec<String> {
    let reason = |node: &NodeStatus| match &node.status {
        Err(error) => Some(error.to_string()),
        Ok(now) if earlier(before, now).is_none() => Some("it was started anew meanwhile".to_owned()),
        Ok(now) if now.stages.is_empty() => Some("its version counts no stages".to_owned()),
        Ok(_) => None,
    };
    after.iter().filter_map(|node| Some(format!("{}: {}", node.address, reason(node)?))).collect()
}

/// What the same process said before.
fn earlier<'a>(before: &'a [NodeStatus], now: &v1::StatusResponse) -> Option<&'a v1::StatusResponse> {
    let mut answers = before.iter().filter_map(|node| node.status.as_ref().ok());
    let then = answers.find(|then| then.node_id == now.node_id && then.uptime_ms < now.uptime_ms)?;
    let shrank = |old: &v1::StageStatus| same_of(now, old).is_none_or(|stage| stage.times < old.times);
    (!then.stages.iter().any(shrank)).then_some(then)
}

/// The same stage of the same core in another answer.
fn same_of<'a>(status: &'a v1::StatusResponse, stage: &v1::StageStatus) -> Option<&'a v1::StageStatus> {
    status.stages.iter().find(|other| (other.core, &other.name) == (stage.core, &stage.name))
}

fn differences(now: &[u64], then: &[u64]) -> Vec<u64> {
    let then = then.iter().copied().chain(std::iter::repeat(0));
    now.iter().zip(then).map(|(now, then)| now.saturating_sub(then)).collect()
}

impl Spent {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds
    }

    fn mean_us(&self) -> Option<f64> {
        (self.times > 0).then(|| self.total_us as f64 / self.times as f64)
    }

    /// The share of its core, of what is work.
    fn of_core(&self) -> Option<f64> {
        self.is_work.then(|| self.total_us as f64 / 1e6 / self.seconds)
    }

    /// Microseconds that a part of the times stayed below: a power of two. `None`: it never came to pass, or
    /// there is no bound.
    fn below_us(&self, part: f64) -> Option<u64> {
        let wanted = (self.times as f64 * part).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        })?;
        let is_last = bucket + 1 == self.buckets.len();
        1_u64.checked_shl(u32::try_from(bucket).ok()?).filter(|_| !is_last)
    }
}

/// One line for each stage of each core.
pub fn table_of(spent: &[Spent]) -> String {
    let titles = ["NODE", "CORE", "STAGE", "TIMES/S", "ITEMS/S", "MEAN", "P50", "P99", "P99.9", "OF CORE"];
    let mut table = Table::new(&titles);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for stage in spent {
        let below = |part| or_none(stage.below_us(part).map(|us| format!("<{us} us")));
        table.row(vec![
            stage.node.to_string(),
            stage.core.to_string(),
            stage.name.clone(),
            format!("{:.0}", stage.per_second(stage.times)),
            format!("{:.0}", stage.per_second(stage.items)),
            or_none(stage.mean_us().map(|us| format!("{us:.1} us"))),
            below(0.5),
            below(0.99),
            below(0.999),
            or_none(stage.of_core().map(|share| format!("{:.1} %", share * 100.0))),
        ]);
    }
    table.render()
}

/// A stage as an object.
pub fn json_of(stage: &Spent) -> Value {
    json!({
        "node": stage.node, "core": stage.core, "stage": stage.name, "is_work": stage.is_work,
        "seconds": stage.seconds, "times": stage.times, "items": stage.items, "total_us": stage.total_us,
        "times_by_log2_us": stage.buckets,
    })
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn node(uptime_ms: u64, times: u64, total_us: u64, buckets: &[u64]) -> NodeStatus {
        let stage = v1::StageStatus {
            core: 0,
            name: "turn".into(),
            is_work: true,
            times,
            items: times * 4,
            total_us,
            times_by_log2_us: buckets.to_vec(),
        };
        let waits = v1::StageStatus { name: "queue".into(), is_work: false, ..v1::StageStatus::default() };
        let stages = vec![stage, waits];
        let status = v1::StatusResponse { node_id: 1, uptime_ms, stages, ..Default::default() };
        NodeStatus { address: "a:1".into(), node: None, status: Ok(status) }
    }

    #[test]
    fn what_was_spent_is_the_difference_of_two_looks() {
        let (before, after) = (node(1000, 10, 100, &[10, 0, 0]), node(3000, 110, 400_100, &[60, 49, 1]));
        let spent = between(from_ref(&before), from_ref(&after));
        assert_eq!(
            table_of(&spent),
            "NODE  CORE  STAGE  TIMES/S  ITEMS/S  MEAN       P50    P99    P99.9  OF CORE\n\
             1     0     turn   50       200      4000.0 us  <1 us  <2 us  -      20.0 %\n\
             1     0     queue  0        0        -          -      -      -      -\n"
        );
        assert_eq!(json_of(&spent[0])["times_by_log2_us"], json!([50, 49, 1]));
        assert_eq!(left_out(from_ref(&before), from_ref(&after)), [""; 0]);
        // It counts anew, whatever its uptime says.
        for (then, now) in [(&after, &before), (&after, &node(4000, 20, 100, &[20, 0, 0]))] {
            assert_eq!(between(from_ref(then), from_ref(now)), []);
            assert_eq!(left_out(from_ref(then), from_ref(now)), ["a:1: it was started anew meanwhile"]);
        }
        let old = v1::StatusResponse { node_id: 1, uptime_ms: 9000, ..Default::default() };
        let old = NodeStatus { status: Ok(old), ..node(0, 0, 0, &[]) };
        let before =
            NodeStatus { status: Ok(v1::StatusResponse { node_id: 1, ..Default::default() }), ..before };
        assert_eq!(left_out(from_ref(&before), from_ref(&old)), ["a:1: its version counts no stages"]);
    }
}
