//! Limits on the memory and the processors of RUN steps.

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::plan::parse_binary_size;
use crate::sandbox::{ResourceLimits, SwapLimit};

use super::heading::STEPS;

/// Limits by control groups. The names are those of `docker run`.
#[derive(Debug, Default, Args)]
pub(crate) struct ResourceArgs {
    /// Limit memory or processors, such as memory=2g
    ///
    /// memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus and cpuset-mems, for each RUN;
    /// also as options of these names. A limit that this machine cannot enforce is an error. May be
    /// repeated.
    #[arg(long, value_name = "NAME=VALUE", help_heading = STEPS)]
    resource: Vec<String>,
    /// Maximum memory of each RUN, such as 2g
    #[arg(short, long, value_name = "BYTES", help_heading = STEPS)]
    memory: Option<String>,
    /// Maximum memory and swap together; -1: unlimited swap
    #[arg(
        long,
        value_name = "BYTES",
        allow_hyphen_values = true,
        hide_short_help = true,
        help_heading = STEPS
    )]
    memory_swap: Option<String>,
    /// Relative share of processors; others have 1024
    #[arg(short, long, value_name = "N", hide_short_help = true, help_heading = STEPS)]
    cpu_shares: Option<String>,
    /// Period of --cpu-quota, in microseconds
    #[arg(long, value_name = "N", hide_short_help = true, help_heading = STEPS)]
    cpu_period: Option<String>,
    /// Time on processors in each period, in microseconds
    ///
    /// The default period has 100,000 microseconds, so 150000 are one and a half processors.
    #[arg(long, value_name = "N", hide_short_help = true, help_heading = STEPS)]
    cpu_quota: Option<String>,
    /// Processors of each RUN, such as 0-3 or 0,1
    #[arg(long, value_name = "LIST", hide_short_help = true, help_heading = STEPS)]
    cpuset_cpus: Option<String>,
    /// Memory nodes of each RUN, such as 0 or 0,1
    #[arg(long, value_name = "LIST", hide_short_help = true, help_heading = STEPS)]
    cpuset_mems: Option<String>,
    /// Control group below which those of RUN steps are made
    #[arg(long, value_name = "PATH", hide_short_help = true, help_heading = STEPS)]
    cgroup_parent: Option<String>,
}

impl ResourceArgs {
    /// Returns whether one of the options is given.
    pub(crate) fn is_given(&self) -> bool {
        !self.resource.is_empty() || self.cgroup_parent.is_some() || self.named().next().is_some()
    }

    /// Returns the limits; `None` without any.
    ///
    /// # Errors
    /// A usage error for a value that cannot be parsed.
    pub(crate) fn limits(&self) -> Result<Option<ResourceLimits>, CliError> {
        self.parsed().map_err(|text| CliError::new(format!("error: {text}"), Exit::Usage))
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpu-shares", &self.cpu_shares),
            ("cpu-period", &self.cpu_period),
            ("cpu-quota", &self.cpu_quota),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    fn parsed(&self) -> Result<Option<ResourceLimits>, String> {
        if !self.is_given() {
            return Ok(None);
        }
        let mut limits = ResourceLimits::default();
        for (name, value) in self.named() {
            set(&mut limits, name, value).map_err(|why| format!("--{name} {value}: {why}"))?;
        }
        for text in &self.resource {
            // As in Buildx, these override the other options.
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            let done = set(&mut limits, name.trim(), value.trim());
            done.map_err(|why| format!("--resource {text}: {why}"))?;
        }
        match (limits.memory_bytes, limits.memory_swap) {
            (None, Some(_)) => return Err("--memory-swap needs --memory".to_owned()),
            (Some(memory), Some(SwapLimit::Bytes(both))) if both < memory => {
                return Err(
                    "--memory-swap is the sum of memory and swap: it must not be less than \
                            --memory"
                        .to_owned(),
                );
            }
            _ => {}
        }
        if let Some(parent) = &self.cgroup_parent {
            if parent.split('/').any(|name| name == "..") || parent.trim_matches('/').is_empty() {
                return Err(format!(
                    "--cgroup-parent {parent}: expected the path of a control group"
                ));
            }
            limits.parent = Some(parent.clone());
        }
        Ok(Some(limits))
    }
}

/// Sets one limit. 0 stands for none, as in docker.
fn set(limits: &mut ResourceLimits, name: &str, value: &str) -> Result<(), String> {
    let size = || parse_binary_size(value).ok_or("expected a size such as 512m");
    let number = || value.parse::<u64>().map_err(|_error| "expected a number");
    let some = |number: u64| Some(number).filter(|number| *number > 0);
    match name {
        "memory" => limits.memory_bytes = some(size()?),
        "memory-swap" if value == "-1" => limits.memory_swap = Some(SwapLimit::Unlimited),
        "memory-swap" => limits.memory_swap = some(size()?).map(SwapLimit::Bytes),
        "cpu-shares" => limits.cpu_shares = some(number()?),
        "cpu-period" => limits.cpu_period_us = some(number()?),
        "cpu-quota" => limits.cpu_quota_us = some(number()?),
        "cpuset-cpus" => limits.cpuset_cpus = list(value)?,
        "cpuset-mems" => limits.cpuset_mems = list(value)?,
        _ => {
            return Err(
                "expected memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or \
                        cpuset-mems, with a value after `=`"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// Reads a list of numbers and ranges (cpuset(7), "List format").
fn list(value: &str) -> Result<Option<String>, String> {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(part),
    };
    if !value.is_empty() && !value.split(',').all(is_part) {
        return Err("expected a list such as 0-3 or 0,1".to_owned());
    }
    Ok(Some(value.to_owned()).filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[(&str, &str)]) -> Result<ResourceLimits, String> {
        let mut limits = ResourceLimits::default();
        options.iter().try_for_each(|(name, value)| set(&mut limits, name, value))?;
        Ok(limits)
    }

    #[test]
    fn limits_are_read_as_docker_does() {
        let limits = parsed(&[
            ("memory", "512m"),
            ("memory-swap", "-1"),
            ("cpu-quota", "150000"),
            ("cpu-shares", "0"),
            ("cpuset-cpus", "0-1,3"),
        ]);
        let want = ResourceLimits {
            memory_bytes: Some(512 << 20),
            memory_swap: Some(SwapLimit::Unlimited),
            cpu_quota_us: Some(150_000),
            cpuset_cpus: Some("0-1,3".to_owned()),
            ..ResourceLimits::default()
        };
        assert_eq!(limits, Ok(want));
        for (name, value) in [
            ("memory", "much"),
            ("cpu-quota", "-1"),
            ("cpuset-cpus", "0-"),
            ("cpuset-mems", "a"),
            ("cpus", "2"),
        ] {
            assert!(parsed(&[(name, value)]).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let of = |memory: Option<&str>, swap: &str, parent: Option<&str>| {
            let (memory, memory_swap) = (memory.map(str::to_owned), Some(swap.to_owned()));
            let cgroup_parent = parent.map(str::to_owned);
            ResourceArgs { memory, memory_swap, cgroup_parent, ..ResourceArgs::default() }.parsed()
        };
        assert!(of(Some("2m"), "3m", Some("/a/b")).is_ok());
        for (memory, swap, parent) in [
            (None, "1m", None),
            (Some("2m"), "1m", None),
            (Some("2m"), "2m", Some("/a/../b")),
            (Some("2m"), "2m", Some("/")),
        ] {
            assert!(of(memory, swap, parent).is_err(), "{memory:?} {swap} {parent:?}");
        }
    }
}
