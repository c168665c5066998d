//! The machine that the load comes from, as the kernel tells of it: a number without it says little.

use std::fs;

/// Where this process runs. What the kernel does not tell is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: Option<String>,
    /// The kernel's name and release.
    pub kernel: Option<String>,
    /// The model of its first CPU.
    pub cpu: Option<String>,
    /// CPUs that are online.
    pub cpus: Option<usize>,
    /// Of these, how many this process may use.
    pub cpus_usable: Option<usize>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
}

impl Host {
    /// Asks the kernel.
    pub fn here() -> Self {
        let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kind = line("/proc/sys/kernel/ostype").unwrap_or_default();
        Self {
            name: line("/proc/sys/kernel/hostname"),
            kernel: line("/proc/sys/kernel/osrelease").map(|release| format!("{kind} {release}")),
            cpu: cpu_of(&cpus),
            cpus: Some(cpus.lines().filter(|line| is_field(line, "processor")).count()).filter(|n| *n > 0),
            cpus_usable: std::thread::available_parallelism().ok().map(usize::from),
            memory_bytes: memory_of(&memory),
        }
    }

    /// The CPUs and the memory, on a line.
    pub fn hardware(&self) -> String {
        let unknown = || "unknown".to_owned();
        let cpus = match (self.cpus, self.cpus_usable) {
            (Some(all), Some(usable)) if all != usable => format!("{usable} of {all} CPUs usable"),
            (Some(cpus), _) | (None, Some(cpus)) => format!("{cpus} CPUs"),
            (None, None) => "CPUs unknown".to_owned(),
        };
        let gib = |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let memory = self.memory_bytes.map_or_else(unknown, gib);
        format!("{}, {cpus}, memory {memory}", self.cpu.clone().unwrap_or_else(unknown))
    }
}

/// The model of the first CPU of `/proc/cpuinfo`. ARM tells no name, but the number of its part.
fn cpu_of(text: &str) -> Option<String> {
    let field = |name| text.lines().find(|line| is_field(line, name)).and_then(value_of);
    field("model name").or_else(|| field("CPU part").map(|part| format!("CPU part {part}")))
}

/// `MemTotal` of `/proc/meminfo`, which counts in KiB.
fn memory_of(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| is_field(line, "MemTotal"))?;
    let kib: u64 = value_of(line)?.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn is_field(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(found, _)| found.trim() == name)
}

fn value_of(line: &str) -> Option<String> {
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells() {
        let cpus = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 3 GHz\n\nprocessor\t: 1\n";
        assert_eq!(cpu_of(cpus).as_deref(), Some("Some CPU @ 3 GHz"));
        assert_eq!(cpu_of("processor: 0\nCPU part\t: 0xd0c\n").as_deref(), Some("CPU part 0xd0c"));
        assert_eq!(cpu_of(""), None);
        assert_eq!(memory_of("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(memory_of("MemTotal: x kB"), None);
    }

    #[test]
    fn the_hardware_on_a_line() {
        let host = Host {
            cpu: Some("X".into()),
            cpus: Some(8),
            cpus_usable: Some(2),
            memory_bytes: Some(3 << 29),
            ..Host::default()
        };
        assert_eq!(host.hardware(), "X, 2 of 8 CPUs usable, memory 1.5 GiB");
        assert_eq!(Host::default().hardware(), "unknown, CPUs unknown, memory unknown");
    }

    #[test]
    fn this_machine_tells() {
        let host = Host::here();
        assert!(
            host.kernel.is_some() && host.cpus_usable.is_some() && host.memory_bytes.is_some(),
            "{host:?}"
        );
    }
}
