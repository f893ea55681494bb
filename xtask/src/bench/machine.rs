//! What the kernel says about this machine and about a process.

use std::fs;

use anyhow::{Context as _, bail};

use crate::stopwatch::rfc3339_now;

/// Ticks per second of the times in `/proc/<pid>/stat`: 100 on every Linux since 2.6 (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// The machine of a run.
#[derive(Debug)]
pub(super) struct Machine {
    /// One line: processor, cores, memory, kernel, day.
    pub(super) facts: String,
}

impl Machine {
    /// Asks the kernel.
    pub(super) fn read() -> anyhow::Result<Self> {
        let cpu = read("/proc/cpuinfo")?;
        let model = value(&cpu, "model name").unwrap_or("unknown processor").to_owned();
        let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
        let memory = kilobytes(&read("/proc/meminfo")?, "MemTotal")? >> 20;
        let kernel = read("/proc/sys/kernel/osrelease")?;
        let (kernel, now) = (kernel.trim(), rfc3339_now());
        let day = now.get(..10).unwrap_or_default();
        if cores < 2 {
            bail!("the benchmark needs two cores: one for the agent, one for senders and receivers");
        }
        Ok(Self { facts: format!("{model}, {cores} cores, {memory} GiB of memory, Linux {kernel}, {day}") })
    }
}

/// Returns the seconds of CPU that a process has used, all its threads and both modes. It works until the process is
/// waited for, so that a process that has ended by itself is counted in full.
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The name of the program, in brackets, may hold anything; behind it the fields count from 3.
    let fields = stat.rsplit_once(')').context("a stat without a name")?.1;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || times.next().context("a stat without times")?.context("a time that is no number");
    let (user, system) = (next()?, next()?);
    Ok((user + system) as f64 / TICKS_PER_SECOND)
}

/// Returns the anonymous memory of a process in bytes.
pub(super) fn anonymous_bytes(pid: u32) -> anyhow::Result<u64> {
    Ok(kilobytes(&read(&format!("/proc/{pid}/status"))?, "RssAnon")? << 10)
}

/// Returns the most memory a process ever had resident, files it has mapped included, in bytes.
pub(super) fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    Ok(kilobytes(&read(&format!("/proc/{pid}/status"))?, "VmHWM")? << 10)
}

fn kilobytes(text: &str, name: &str) -> anyhow::Result<u64> {
    let value = value(text, name).with_context(|| format!("no {name}: has the process ended?"))?;
    value.split(' ').next().unwrap_or_default().parse().with_context(|| format!("{name} is no number"))
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name() {
        let text = "Name:\tagent\nRssAnon:\t    4096 kB\nRssFile:\t 1 kB\n";
        assert_eq!(kilobytes(text, "RssAnon").unwrap(), 4096);
        assert!(kilobytes(text, "VmHWM").is_err());
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(anonymous_bytes(pid).unwrap() > 0);
        assert!(peak_bytes(pid).unwrap() > 0);
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
    }
}
