//! Where the executors of a node run: `--cores`, and what this process is left of the machine.
//!
//! | `--cores` | pinned | not pinned |
//! |---|---|---|
//! | `auto` | to each CPU that the process may use, to no more than it has the time of | as many |
//! | `N` | to the first N of those; where there are fewer: exit code 14 | N |
//! | `LIST` | to these; where the process may not use one: exit code 14 | as many as are listed |
//!
//! The kernel would let a process out of the CPUs that `taskset` has left it; whoever did that meant it.

use distribkv::config::{Cores, Settings};
use distribkv::env::executor::{CorePlacement, ExecutorError};
use distribkv::env::os::cpu;
use distribkv::host::exit::Exit;

/// How many cores a node with these settings runs on, here and now.
pub fn cores_of(settings: &Settings) -> Result<u32, Exit> {
    let (cores, left) = (asked_for(settings)?, Left::of_this_process()?);
    Ok(u32::try_from(left.count(&cores)).expect("validated to be few"))
}

/// Where each executor of a node with these settings runs, here and now.
pub fn placements(settings: &Settings) -> Result<Vec<CorePlacement>, Exit> {
    let (cores, left) = (asked_for(settings)?, Left::of_this_process()?);
    if !settings.node.pin {
        return Ok(vec![CorePlacement::Anywhere; left.count(&cores)]);
    }
    let cpus = left.cpus(cores).map_err(|why| Exit::Executor(ExecutorError::Cpu(why)))?;
    Ok(cpus.into_iter().map(CorePlacement::Pinned).collect())
}

fn asked_for(settings: &Settings) -> Result<Cores, Exit> {
    settings.node.cores().map_err(|invalid| Exit::Usage(invalid.to_string()))
}

/// What a process is left of the machine.
struct Left {
    /// The CPUs that it may use.
    cpus: Vec<usize>,
    /// How many of them it has the time of: a container may have less than it has CPUs.
    quota: usize,
}

impl Left {
    fn of_this_process() -> Result<Self, Exit> {
        let failed = |source| Exit::Io { what: "asking which CPUs this process may use".into(), source };
        let cpus = cpu::allowed().map_err(failed)?;
        let quota = std::thread::available_parallelism().map_or(cpus.len(), usize::from);
        Ok(Self { cpus, quota })
    }

    /// How many executors there are.
    fn count(&self, cores: &Cores) -> usize {
        match cores {
            Cores::Auto => self.cpus.len().min(self.quota),
            Cores::Count(count) => *count as usize,
            Cores::List(list) => list.len(),
        }
    }

    /// The CPUs that they are pinned to; where those are not ours, what is wrong.
    fn cpus(&self, cores: Cores) -> Result<Vec<usize>, String> {
        let count = self.count(&cores);
        let ours = || format!("this process may use {} ({})", self.cpus.len(), ranges(&self.cpus));
        match cores {
            Cores::Auto => Ok(self.cpus[..count].to_vec()),
            Cores::Count(_) if count <= self.cpus.len() => Ok(self.cpus[..count].to_vec()),
            Cores::Count(_) => Err(format!("{count} CPUs are asked for, and {}", ours())),
            Cores::List(list) => {
                let (known, others): (Vec<usize>, Vec<usize>) =
                    list.into_iter().map(|cpu| cpu as usize).partition(|cpu| self.cpus.contains(cpu));
                if others.is_empty() {
                    return Ok(known);
                }
                Err(format!("CPU {} is asked for, and {}", ranges(&others), ours()))
            }
        }
    }
}

/// A list of numbers in their order as `--cores` takes it: `0,2,4-7`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|before, next| before + 1 == *next).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        [..] => run[0].to_string(),
    });
    runs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executors_are_pinned_to_what_the_process_may_use() {
        let on = |cores: &str, quota| {
            let left = Left { cpus: vec![1, 4, 5, 6, 9], quota };
            left.cpus(Cores::parse(cores).expect("well formed"))
        };
        assert_eq!(on("auto", 5), Ok(vec![1, 4, 5, 6, 9]));
        assert_eq!(on("auto", 2), Ok(vec![1, 4]), "a quota of two");
        assert_eq!(on("3", 2), Ok(vec![1, 4, 5]), "what was asked for");
        assert_eq!(on("4-5,9", 2), Ok(vec![4, 5, 9]));
        let ours = "this process may use 5 (1,4-6,9)";
        assert_eq!(on("6", 8), Err(format!("6 CPUs are asked for, and {ours}")));
        assert_eq!(on("0-4,7", 8), Err(format!("CPU 0,2-3,7 is asked for, and {ours}")));
    }

    #[test]
    fn without_pinning_there_are_as_many_as_are_asked_for() {
        let count = |cores: &str, quota| {
            let left = Left { cpus: vec![1, 4, 5], quota };
            left.count(&Cores::parse(cores).expect("well formed"))
        };
        assert_eq!((count("auto", 8), count("auto", 2), count("6", 2), count("0-3", 1)), (3, 2, 6, 4));
    }
}
