//! `kvserver`: a node of a distribKV cluster, or a whole cluster on one machine; what looks into the data
//! directory of a node that does not run; and what looks at the host that one is to run on.

mod args;
mod heap;
mod inspect;
mod local;
mod placement;
mod ready;
mod restore;
mod recover;
mod serve;
mod store;
mod tune;
#[path = "../../env/os/heap.rs"]
mod os_heap;
#[path = "../../env/os/uring_wrap.rs"]
mod uring_wrap;

use clap::{CommandFactory as _, Parser as _};
use distribkv::flags;
use distribkv::host::exit::Exit;

use args::{Cli, Command, NodeArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    abort_on_panic();
    let cli = Cli::parse_from(flags::with_two_dashes(std::env::args_os(), &Cli::command()));
    let code = match cli.command {
        Some(Command::Local(args)) => local::run(&args),
        Some(Command::Restore(args)) => code_of(restore::run(&args)),
        Some(Command::Verify(args)) => inspect::verify(&args).unwrap_or_else(say),
        Some(Command::Dump(args)) => code_of(inspect::dump(&args)),
        Some(Command::Tune(args)) => code_of(tune::run(&args)),
        None => code_of(run_node(&cli.node)),
    };
    std::process::exit(code);
}

/// The exit code, when what there is to say is said.
fn code_of(ended: Result<(), Exit>) -> i32 {
    ended.map_or_else(say, |()| 0)
}

/// Says why the process ends; its exit code.
fn say(exit: Exit) -> i32 {
    eprintln!("kvserver: {exit}");
    exit.code()
}

fn run_node(args: &NodeArgs) -> Result<(), Exit> {
    let settings = args.settings().map_err(Exit::Usage)?;
    heap::keep(&settings);
    let planted = args.planted().map_err(Exit::Usage)?;
    let recovery = args.recovery(&settings).map_err(Exit::Usage)?;
    serve::follow_parent(args.die_with_parent)?;
    serve::start_logging(&settings)?;
    serve::run(settings, args.profile_name(), recovery, planted)
}

/// A dead executor must not leave a node half alive: a panic anywhere ends the process.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use distribkv::env::Env as _;
    use distribkv::env::executor::{CorePlacement, ExecutorOptions, start_executor};
    use distribkv::env::glommio::GlommioEnv;
    use distribkv::env::os::{spin, uring};

    /// The linker has to have done its part: without it the flags are silently not there.
    #[test]
    fn executors_have_rings_that_do_not_interrupt_them() {
        let flags = uring::SETUP_COOP_TASKRUN | uring::SETUP_SINGLE_ISSUER;
        assert_eq!(uring::calmly(uring::probe).expect("the tests need io_uring"), flags);
        assert_eq!(uring::probe().expect("the tests need io_uring"), 0, "it ends with what was to be calm");
    }

    /// Whether one of so many short sleeps of an executor is spared, where it looks for so long before each.
    fn is_spared_one_of(sleeps: usize, limit: Duration) -> bool {
        let options =
            ExecutorOptions { spin: limit, ..ExecutorOptions::new("spins", CorePlacement::Anywhere, 1) };
        let sleeping = async move || {
            let env = GlommioEnv::new().expect("the kernel has random numbers");
            for _ in 0..sleeps {
                env.sleep(Duration::from_micros(100)).await;
                if spin::spared() > 0 {
                    return true;
                }
            }
            false
        };
        start_executor(options, sleeping).expect("the tests need io_uring").join().expect("it ends")
    }

    /// The linker has to have done its part here, too. Whoever has company on its CPU looks seldom.
    #[test]
    fn an_executor_with_short_waits_looks_before_it_sleeps() {
        assert!(is_spared_one_of(10_000, Duration::from_secs(1)));
        assert!(!is_spared_one_of(100, Duration::ZERO), "nor does one that is not to");
    }
}
