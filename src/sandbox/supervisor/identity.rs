//! The users and groups that a step's processes believe to have, where all run as one user.
//!
//! A process's identity is inherited by its children at fork(2), at a moment that a supervisor cannot
//! see. So the kernel carries it: the soft limit `RLIMIT_RTTIME`, which only affects processes with
//! real-time scheduling, holds the number of an entry in the supervisor's table (setrlimit(2),
//! inherited by fork(2) and kept by execve(2)).

use std::collections::HashMap;
use std::sync::Arc;

use rustix::io::{Errno, Result};
use rustix::process::{Resource, Rlimit};

use super::mounts::below;
use super::target::Target;
use super::{Answer, INITIAL_UMASK, Reply, Supervisor, id_argument};
use crate::sandbox::caps;
use crate::sandbox::spec::Limit;
use crate::sandbox::sys::notify::Notification;
use crate::sandbox::sys::process;

/// The limit that carries the number of a state.
const CARRIER: Resource = Resource::Rttime;
/// The limit's value for state 0, in microseconds: half a year.
const FIRST_STATE: u64 = 1 << 44;

/// The limit of a process in state 0.
pub(in crate::sandbox) const CARRIER_LIMIT: Limit =
    Limit { resource: CARRIER, soft: Some(FIRST_STATE), hard: None };

/// Maximum number of supplementary groups (`NGROUPS_MAX`).
const MAX_GROUPS: u64 = 65_536;
/// An id argument that means "unchanged" (setresuid(2)).
const UNCHANGED: u32 = u32::MAX;
/// The id of no user: that of a process which has ended.
const NO_ID: u32 = u32::MAX;

/// The ids of a process (credentials(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ids {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    pub(super) filesystem: u32,
}

impl Ids {
    pub(super) const fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, filesystem: id }
    }

    /// Sets the three ids as setresuid(2) does.
    fn set(&mut self, [real, effective, saved]: [u32; 3], is_privileged: bool) -> Result<()> {
        let owned = [self.real, self.effective, self.saved];
        let allowed = |id: u32| id == UNCHANGED || is_privileged || owned.contains(&id);
        if ![real, effective, saved].into_iter().all(allowed) {
            return Err(Errno::PERM);
        }
        let or = |new: u32, old: u32| if new == UNCHANGED { old } else { new };
        self.real = or(real, self.real);
        self.effective = or(effective, self.effective);
        self.saved = or(saved, self.saved);
        self.filesystem = self.effective;
        Ok(())
    }

    /// Sets real and effective id as setreuid(2) does.
    fn set_real_effective(&mut self, real: u32, effective: u32, is_privileged: bool) -> Result<()> {
        let sets_saved = real != UNCHANGED || (effective != UNCHANGED && effective != self.real);
        if real != UNCHANGED && !is_privileged && real != self.real && real != self.effective {
            return Err(Errno::PERM);
        }
        let new = if effective == UNCHANGED { self.effective } else { effective };
        self.set([real, effective, UNCHANGED], is_privileged)?;
        if sets_saved {
            self.saved = new;
        }
        Ok(())
    }

    /// Sets the ids as setuid(2) does.
    fn set_one(&mut self, id: u32, is_privileged: bool) -> Result<()> {
        if is_privileged {
            *self = Self::all(id);
            return Ok(());
        }
        if id != self.real && id != self.saved {
            return Err(Errno::PERM);
        }
        (self.effective, self.filesystem) = (id, id);
        Ok(())
    }

    /// Sets the id for the file system and returns the previous one (setfsuid(2)).
    fn set_filesystem(&mut self, id: u32, is_privileged: bool) -> u32 {
        let before = self.filesystem;
        let owned = [self.real, self.effective, self.saved, self.filesystem];
        if is_privileged || owned.contains(&id) {
            self.filesystem = id;
        }
        before
    }
}

/// The identity of a process, and what else it inherits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ProcessState {
    pub(super) uid: Ids,
    pub(super) gid: Ids,
    pub(super) groups: Vec<u32>,
    pub(super) umask: u32,
    /// The path of its program in the step's root.
    pub(super) program: Vec<u8>,
    /// The path of its own root in the step's root (chroot(2)); empty for the step's.
    pub(super) root: Vec<u8>,
}

impl ProcessState {
    /// Returns whether it has all capabilities of a step (capabilities(7)).
    pub(super) const fn is_privileged(&self) -> bool {
        self.uid.effective == 0
    }

    /// Returns a path in the step's root as the process sees it; `None` if it is outside of its root.
    pub(super) fn seen(&self, path: &[u8]) -> Option<Vec<u8>> {
        if self.root.is_empty() {
            return Some(path.to_vec());
        }
        let rest = below(path, &self.root)?;
        Some([b"/", rest].concat())
    }

    /// Returns whether the group is one of its own for access to files.
    pub(super) fn is_in_group(&self, gid: u32) -> bool {
        self.gid.filesystem == gid || self.groups.contains(&gid)
    }
}

/// All states of a step's processes, by number.
#[derive(Debug)]
pub(super) struct StateTable {
    states: Vec<Arc<ProcessState>>,
    numbers: HashMap<Arc<ProcessState>, u64>,
    /// The state of the supervisor itself, which may look up any path.
    root: Arc<ProcessState>,
}

impl StateTable {
    pub(super) fn new(first: ProcessState) -> Self {
        let root =
            ProcessState { uid: Ids::all(0), gid: Ids::all(0), root: Vec::new(), ..first.clone() };
        let first = Arc::new(first);
        let numbers = HashMap::from([(Arc::clone(&first), 0)]);
        Self { states: vec![first], numbers, root: Arc::new(root) }
    }

    fn get(&self, number: u64) -> Option<Arc<ProcessState>> {
        self.states.get(usize::try_from(number).ok()?).cloned()
    }

    fn root(&self) -> Arc<ProcessState> {
        Arc::clone(&self.root)
    }

    fn first(&self) -> Arc<ProcessState> {
        self.states.first().cloned().expect("the table is made with one state")
    }

    fn number_of(&mut self, state: ProcessState) -> u64 {
        if let Some(number) = self.numbers.get(&state) {
            return *number;
        }
        let number = u64::try_from(self.states.len()).unwrap_or(0);
        let state = Arc::new(state);
        self.states.push(Arc::clone(&state));
        self.numbers.insert(state, number);
        number
    }
}

impl Supervisor {
    /// Returns the state of a process.
    pub(super) fn state(&self, target: Target) -> Arc<ProcessState> {
        if !self.rules.emulates_owners {
            return self.real_state(target);
        }
        if target.pid == rustix::process::getpid() {
            return self.states.root();
        }
        let limit = process::soft_limit(target.pid, CARRIER).ok();
        let number = limit.and_then(|limit| limit.checked_sub(FIRST_STATE));
        number.and_then(|number| self.states.get(number)).unwrap_or_else(|| self.states.first())
    }

    /// Returns the ids that a process really has: it must not access more than it may because the
    /// supervisor, as root, opens files in its place.
    fn real_state(&self, target: Target) -> Arc<ProcessState> {
        if !self.rules.has_mounts {
            return self.states.root();
        }
        self.caller.state(target, || {
            let status = target.status().unwrap_or_default();
            let ids = |id: Option<u32>| Ids::all(id.unwrap_or(NO_ID));
            ProcessState {
                uid: ids(status.uid()),
                gid: ids(status.gid()),
                groups: status.groups(),
                umask: status.umask().unwrap_or(INITIAL_UMASK),
                ..ProcessState::clone(&self.states.root)
            }
        })
    }

    pub(super) fn set_state(&mut self, target: Target, state: ProcessState) -> Result<()> {
        let number = self.states.number_of(state);
        let current = Some(FIRST_STATE.saturating_add(number));
        rustix::process::prlimit(Some(target.pid), CARRIER, Rlimit { current, maximum: None })
            .map(drop)
    }

    fn change_state(
        &mut self,
        call: &Notification,
        change: impl FnOnce(&mut ProcessState) -> Result<i64>,
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let mut state = ProcessState::clone(&self.state(target));
        let result = change(&mut state)?;
        self.set_state(target, state)?;
        Ok(Reply::Value(result))
    }

    pub(super) fn getuid(&mut self, call: &Notification) -> Answer {
        self.report(call, |state| state.uid.real)
    }

    pub(super) fn geteuid(&mut self, call: &Notification) -> Answer {
        self.report(call, |state| state.uid.effective)
    }

    pub(super) fn getgid(&mut self, call: &Notification) -> Answer {
        self.report(call, |state| state.gid.real)
    }

    pub(super) fn getegid(&mut self, call: &Notification) -> Answer {
        self.report(call, |state| state.gid.effective)
    }

    fn report(&self, call: &Notification, of: fn(&ProcessState) -> u32) -> Answer {
        Ok(Reply::Value(of(&self.state(Target::new(call.pid)?)).into()))
    }

    pub(super) fn getresuid(&mut self, call: &Notification) -> Answer {
        let ids = self.state(Target::new(call.pid)?).uid;
        write_ids(call, ids)
    }

    pub(super) fn getresgid(&mut self, call: &Notification) -> Answer {
        let ids = self.state(Target::new(call.pid)?).gid;
        write_ids(call, ids)
    }

    pub(super) fn getgroups(&mut self, call: &Notification) -> Answer {
        let target = Target::new(call.pid)?;
        let [size, address, ..] = call.args;
        let state = self.state(target);
        let n_groups = u64::try_from(state.groups.len()).unwrap_or(0);
        if size != 0 {
            if size < n_groups {
                return Err(Errno::INVAL.into());
            }
            let bytes: Vec<u8> = state.groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
            target.write(address, &bytes)?;
        }
        Ok(Reply::Value(n_groups.cast_signed()))
    }

    pub(super) fn setuid(&mut self, call: &Notification) -> Answer {
        let id = id_argument(call, 0);
        self.change_state(call, |state| {
            let is_privileged = state.is_privileged();
            state.uid.set_one(id, is_privileged).map(|()| 0)
        })
    }

    pub(super) fn setgid(&mut self, call: &Notification) -> Answer {
        let id = id_argument(call, 0);
        self.change_state(call, |state| {
            let is_privileged = state.is_privileged();
            state.gid.set_one(id, is_privileged).map(|()| 0)
        })
    }

    pub(super) fn setreuid(&mut self, call: &Notification) -> Answer {
        let (real, effective) = (id_argument(call, 0), id_argument(call, 1));
        self.change_state(call, |state| {
            let is_privileged = state.is_privileged();
            state.uid.set_real_effective(real, effective, is_privileged).map(|()| 0)
        })
    }

    pub(super) fn setregid(&mut self, call: &Notification) -> Answer {
        let (real, effective) = (id_argument(call, 0), id_argument(call, 1));
        self.change_state(call, |state| {
            let is_privileged = state.is_privileged();
            state.gid.set_real_effective(real, effective, is_privileged).map(|()| 0)
        })
    }

    pub(super) fn setresuid(&mut self, call: &Notification) -> Answer {
        let ids = [0, 1, 2].map(|index| id_argument(call, index));
        self.change_state(call, |state| {
            let is_privileged = state.is_privileged();
            state.uid.set(ids, is_privileged).map(|()| 0)
        })
    }

    pub(super) fn setresgid(&mut self, call: &Notification) -> Answer {
        let ids = [0, 1, 2].map(|index| id_argument(call, index));
        self.change_state(call, |state| {
            let is_privileged = state.is_privileged();
            state.gid.set(ids, is_privileged).map(|()| 0)
        })
    }

    pub(super) fn setfsuid(&mut self, call: &Notification) -> Answer {
        let id = id_argument(call, 0);
        self.change_state(call, |state| {
            let is_privileged = state.is_privileged();
            Ok(state.uid.set_filesystem(id, is_privileged).into())
        })
    }

    pub(super) fn setfsgid(&mut self, call: &Notification) -> Answer {
        let id = id_argument(call, 0);
        self.change_state(call, |state| {
            let is_privileged = state.is_privileged();
            Ok(state.gid.set_filesystem(id, is_privileged).into())
        })
    }

    pub(super) fn setgroups(&mut self, call: &Notification) -> Answer {
        let target = Target::new(call.pid)?;
        let [n_groups, address, ..] = call.args;
        if n_groups > MAX_GROUPS {
            return Err(Errno::INVAL.into());
        }
        let len = usize::try_from(n_groups.saturating_mul(4)).map_err(|_error| Errno::INVAL)?;
        let mut bytes = vec![0; len];
        target.read_exact(address, &mut bytes)?;
        let groups = bytes.as_chunks::<4>().0.iter().map(|id| u32::from_ne_bytes(*id)).collect();
        self.change_state(call, |state| {
            if !state.is_privileged() {
                return Err(Errno::PERM);
            }
            state.groups = groups;
            Ok(0)
        })
    }

    pub(super) fn umask(&mut self, call: &Notification) -> Answer {
        let [mask, ..] = call.args;
        let mask = u32::try_from(mask & 0o777).unwrap_or(0);
        self.change_state(call, |state| Ok(std::mem::replace(&mut state.umask, mask).into()))
    }

    /// Reports all capabilities of a step to a process of user 0, and none to others.
    pub(super) fn capget(&mut self, call: &Notification) -> Answer {
        let target = Target::new(call.pid)?;
        let [header, data, ..] = call.args;
        let is_privileged = self.state(target).is_privileged();
        if target.u32(header)? != CAPABILITY_VERSION_3 {
            target.write(header, &CAPABILITY_VERSION_3.to_ne_bytes())?;
            return if data == 0 { Ok(Reply::Value(0)) } else { Err(Errno::INVAL.into()) };
        }
        if data == 0 {
            return Ok(Reply::Value(0));
        }
        let low = if is_privileged { caps::DOCKER_DEFAULT.bits() } else { 0 };
        let low = u32::try_from(low & 0xffff_ffff).unwrap_or(0);
        let sets = [low, low, 0, 0, 0, 0];
        let bytes: Vec<u8> = sets.into_iter().flat_map(u32::to_ne_bytes).collect();
        target.write(data, &bytes)?;
        Ok(Reply::Value(0))
    }

    /// Accepts a change of capabilities, which has no effect on what is emulated.
    pub(super) fn capset(&mut self, call: &Notification) -> Answer {
        let target = Target::new(call.pid)?;
        let [header, ..] = call.args;
        if target.u32(header)? != CAPABILITY_VERSION_3 {
            return Err(Errno::INVAL.into());
        }
        Ok(Reply::Value(0))
    }
}

/// `_LINUX_CAPABILITY_VERSION_3` (capget(2)).
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

fn write_ids(call: &Notification, ids: Ids) -> Answer {
    let target = Target::new(call.pid)?;
    let [real, effective, saved, ..] = call.args;
    for (address, id) in [(real, ids.real), (effective, ids.effective), (saved, ids.saved)] {
        target.write(address, &id.to_ne_bytes())?;
    }
    Ok(Reply::Value(0))
}
