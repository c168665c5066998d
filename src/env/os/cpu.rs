//! CPUs: which of them a thread may run on.

use std::io;

/// A word of a set of CPUs, as the kernel has it.
type Word = libc::c_ulong;

/// The words of the largest set that is asked for: of 4096 CPUs.
const WORDS: usize = 4096 / Word::BITS as usize;

/// The CPUs that this thread may run on, in their order: what `taskset`, a container or a service manager has
/// left it.
///
/// # Errors
///
/// What the kernel says; it has no reason to where the machine has no more than 4096 CPUs.
pub fn allowed() -> io::Result<Vec<usize>> {
    let mut set = [0; WORDS];
    // SAFETY: the kernel writes no more than the size that it is told, which is the array's, and the array
    // lives through the call; 0 is this thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), set.as_mut_ptr().cast()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(members(&set))
}

/// The CPUs of a set.
fn members(set: &[Word]) -> Vec<usize> {
    let bits = Word::BITS as usize;
    (0..set.len() * bits).filter(|cpu| set[cpu / bits] >> (cpu % bits) & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_run_somewhere_and_that_is_what_the_kernel_says() {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("this is Linux");
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let bounds = list.expect("the kernel says it").trim().split(',').map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.parse::<usize>().expect("a CPU");
            number(first)..=number(last)
        });
        assert_eq!(allowed().expect("it may be asked"), bounds.flatten().collect::<Vec<_>>());
    }

    #[test]
    fn a_set_is_read_across_its_words() {
        assert_eq!(members(&[0b101, 0]), [0, 2]);
        assert_eq!(members(&[0, 1 << 63 | 1]), [64, 127]);
        assert!(members(&[0; WORDS]).is_empty());
    }
}
