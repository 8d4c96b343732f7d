//! The processes below another one, as `/proc` lists them (proc_pid_stat(5)).

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags};
use rustix::process::Pid;

use crate::limits::{MAX_COMMAND_LINE_BYTES, MAX_LISTED_PROCESSES};
use crate::pathio;

/// Maximum size of `/proc/PID/stat`: 52 numbers and a name of 15 bytes.
const MAX_STAT_BYTES: u64 = 4096;

/// A process and its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    /// Time of its start, in clock ticks since the boot.
    started: u64,
}

/// Returns the command line of the process that is deepest below `root`, or of `root`: words that end
/// with a null byte each. Of several, the one that started last counts. `None` if `/proc` shows none.
pub(super) fn deepest_command_line(root: Pid) -> Option<Vec<u8>> {
    let processes = processes();
    let mut by_depth = by_depth(&processes, root.as_raw_pid());
    // Deepest first. A process that has ended meanwhile has no command line.
    by_depth.reverse();
    by_depth.into_iter().find_map(|pid| {
        let path = format!("/proc/{pid}/cmdline");
        let line = pathio::read_start(Path::new(&path), MAX_COMMAND_LINE_BYTES).ok()?;
        (!line.is_empty()).then_some(line)
    })
}

fn processes() -> Vec<Process> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty()).and_then(Dir::new);
    let Ok(listed) = listed else { return Vec::new() };
    let names = listed.filter_map(Result::ok);
    let pids = names.filter_map(|entry| entry.file_name().to_str().ok()?.parse::<i32>().ok());
    pids.take(MAX_LISTED_PROCESSES).filter_map(process).collect()
}

fn process(pid: i32) -> Option<Process> {
    let path = format!("/proc/{pid}/stat");
    let text = pathio::read(Path::new(&path), MAX_STAT_BYTES).ok()?;
    parse_stat(pid, &String::from_utf8_lossy(&text))
}

/// Reads the 4th and the 22nd field. The 2nd is a name in parentheses, which may contain any character.
fn parse_stat(pid: i32, text: &str) -> Option<Process> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, started })
}

/// Returns `root` and all below it, each level in the order of their starts.
fn by_depth(processes: &[Process], root: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(*process);
    }
    let (mut all, mut level) = (Vec::new(), vec![root]);
    while !level.is_empty() {
        // Each process is a child once, so this ends even if `/proc` changed while it was read.
        let mut next: Vec<Process> =
            level.iter().filter_map(|pid| children.remove(pid)).flatten().collect();
        next.sort_by_key(|process| (process.started, process.pid));
        all.append(&mut level);
        level = next.iter().map(|process| process.pid).collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_any_name() {
        let rest = "S 40 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0";
        for name in ["sh", "a b", ") S 9 (", "x) y"] {
            let found = parse_stat(41, &format!("41 ({name}) {rest}"));
            assert_eq!(found, Some(Process { pid: 41, parent: 40, started: 777 }), "{name}");
        }
        assert_eq!(parse_stat(1, "1 (sh) S"), None);
    }

    #[test]
    fn deepest_process_is_last_and_cycles_end() {
        let process = |pid, parent, started| Process { pid, parent, started };
        let all = [
            process(1, 0, 0),
            process(10, 1, 5),
            process(12, 10, 9),
            process(11, 10, 8),
            process(13, 11, 10),
            process(14, 11, 7),
            process(2, 1, 99),
        ];
        assert_eq!(by_depth(&all, 10), [10, 11, 12, 14, 13]);
        assert_eq!(by_depth(&all, 77), [77]);
        let circle = [process(1, 2, 0), process(2, 1, 0)];
        assert_eq!(by_depth(&circle, 1), [1, 2, 1]);
    }
}
