//! The same for programs: one object.

use distribkv::tune::facts::Host;
use distribkv::tune::pace::SLOT_US;
use distribkv::tune::{Cell, Choice, Finding, Measured, Pace};
use serde_json::{Value, json};

/// Everything that was found, as one object and a line end.
pub fn report((host, measured): (&Host, &Measured), found: &[Finding], choices: &[Choice]) -> String {
    let findings: Vec<Value> = found
        .iter()
        .map(|finding| {
            json!({
                "state": finding.state.word(),
                "what": finding.what,
                "found": finding.found,
                "wanted": finding.wanted,
                "change": finding.change,
            })
        })
        .collect();
    let cell = |cell: &Cell| {
        json!({
            "bytes": cell.bytes,
            "depth": cell.depth,
            "writes_per_s": cell.rate(),
            "bytes_per_s": cell.bytes_per_s(),
            "p50_us": cell.p50_us,
            "p99_us": cell.p99_us,
        })
    };
    let settings: Vec<Value> = choices
        .iter()
        .map(|choice| json!({"key": choice.key, "value": choice.value, "reason": choice.reason}))
        .collect();
    let pace = |pace: &Pace| {
        json!({
            "slot_us": SLOT_US,
            "work_by_slot": pace.slots,
            "slow_us_max": pace.slow_us_max(),
            "slow_milli": pace.slow_milli(),
        })
    };
    let disk = measured.disk.as_ref().map(|disk| disk.cells.iter().map(cell).collect::<Vec<_>>());
    let report = json!({
        "directory": host.dir.path,
        "findings": findings,
        "cpu_pace": measured.pace.as_ref().map(pace),
        "disk": disk,
        "settings": settings,
    });
    format!("{report:#}\n")
}
