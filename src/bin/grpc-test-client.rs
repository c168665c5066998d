//! A gRPC client that checks a server's health, once or again and again.

#[path = "test_tools/mod.rs"]
mod test_tools;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use distribkv::wire::health::HealthCheckRequest;
use distribkv::wire::health::health_check_response::ServingStatus;
use distribkv::wire::health::health_client::HealthClient;
use test_tools::{Log, long_flags};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::transport::{Channel, Endpoint};

const LOG: Log = Log { name: "test-client" };

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that checks the health of a gRPC server.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The server, as host:port.
    #[arg(long, default_value = "localhost:50051")]
    addr: String,
    /// Whether to check once, or as often as asked for.
    #[arg(long, value_enum, default_value_t = Mode::Single)]
    mode: Mode,
    /// In continuous mode: how many checks; 0: until a signal.
    #[arg(long, default_value_t = 1)]
    requests: u64,
    /// In continuous mode: the time between two checks, as in 500ms, 1s or 1m30s.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    delay: Duration,
    /// The client's name among others.
    #[arg(long, default_value = "client")]
    id: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// One check: exit status 0 where the server serves, else 1.
    Single,
    /// Many checks and a report.
    Continuous,
}

fn main() -> ExitCode {
    let args = Args::parse_from(long_flags(std::env::args_os()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(&args)).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("grpc-test-client: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let endpoint = Endpoint::from_shared(format!("http://{}", args.addr))?;
    let channel = endpoint.connect_timeout(CHECK_TIMEOUT).timeout(CHECK_TIMEOUT).connect_lazy();
    let mut client = HealthClient::new(channel);
    let is_good = match args.mode {
        Mode::Single => check(&mut client, &args.id).await.is_ok(),
        Mode::Continuous => check_continuously(&mut client, args).await?,
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks once and says what came of it, and how long it took.
async fn check(client: &mut HealthClient<Channel>, id: &str) -> Result<Duration, ()> {
    let begun = Instant::now();
    let answer = client.check(HealthCheckRequest { service: String::new() }).await;
    let took = begun.elapsed();
    match answer {
        Ok(response) if response.get_ref().status() == ServingStatus::Serving => {
            LOG.line(format_args!("{id}: SERVING in {}", Millis(took)));
            Ok(took)
        }
        Ok(response) => {
            LOG.line(format_args!("{id}: {}", response.get_ref().status().as_str_name()));
            Err(())
        }
        Err(status) => {
            LOG.line(format_args!("{id}: check failed: {:?}: {}", status.code(), status.message()));
            Err(())
        }
    }
}

/// What a run of checks came to.
#[derive(Default)]
struct Report {
    requests: u64,
    successes: u64,
    latency: Duration,
}

impl Report {
    fn add(&mut self, checked: Result<Duration, ()>) {
        self.requests += 1;
        if let Ok(took) = checked {
            self.successes += 1;
            self.latency += took;
        }
    }

    fn log(&self, id: &str) {
        let rate = 100.0 * self.successes as f64 / self.requests.max(1) as f64;
        let average = self.latency.div_f64(self.successes.max(1) as f64);
        LOG.line(format_args!(
            "{id}: requests: {}, success rate: {rate:.1}%, average latency: {}",
            self.requests,
            Millis(average)
        ));
    }
}

/// Checks until there were enough or a signal comes, and reports; whether every check succeeded.
async fn check_continuously(client: &mut HealthClient<Channel>, args: &Args) -> std::io::Result<bool> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut report = Report::default();
    while args.requests == 0 || report.requests < args.requests {
        if report.requests > 0 {
            tokio::select! {
                () = tokio::time::sleep(args.delay) => {}
                () = either(&mut interrupt, &mut terminate) => break,
            }
        }
        tokio::select! {
            checked = check(client, &args.id) => report.add(checked),
            () = either(&mut interrupt, &mut terminate) => break,
        }
    }
    report.log(&args.id);
    Ok(report.successes == report.requests)
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// A time in milliseconds, to the microsecond.
struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3}ms", self.0.as_secs_f64() * 1000.0)
    }
}

/// A time as numbers with units, one after the other: h, m, s, ms, us or ns.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 500ms, 1.5s or 1m30s");
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * scale;
        rest = tail;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good =
            [("500ms", 500_000), ("1s", 1_000_000), ("1m30s", 90_000_000), ("1.5s", 1_500_000), ("20us", 20)];
        for (text, micros) in good {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1x", "1..5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
