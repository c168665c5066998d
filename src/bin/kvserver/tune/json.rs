//! The same for programs: one object.

use distribkv::tune::facts::Host;
use distribkv::tune::{Cell, Choice, Disk, Finding};
use serde_json::{Value, json};

/// Everything that was found, as one object and a line end.
pub fn report(host: &Host, found: &[Finding], disk: Option<&Disk>, choices: &[Choice]) -> String {
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
    let disk = disk.map(|disk| disk.cells.iter().map(cell).collect::<Vec<_>>());
    let report =
        json!({"directory": host.dir.path, "findings": findings, "disk": disk, "settings": settings});
    format!("{report:#}\n")
}
