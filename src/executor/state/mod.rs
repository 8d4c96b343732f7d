//! The state that all stages of a build share.

pub(super) mod layers;
pub(super) mod memory_budget;
pub(super) mod memory_files;
pub(super) mod root_directories;
pub(super) mod stage_result;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use crate::pathio;
use crate::plan::{CacheKey, Network, OperationKey, Plan};
use crate::pool;
use crate::sandbox::{NAME_SERVER, PrivateNetwork, PrivateNetworkOptions, SandboxError};
use crate::store::{StoreError, WorkDirectory};

use super::cache::build_caches::BuildCaches;
use super::cache::explain::Explainer;
use super::cache::lookup::StepCache;
use super::inputs::build_inputs::BuildInputs;
use super::inputs::image_table::ImageTable;
use super::mounts::context_directories::ContextDirectories;
use super::slot::Slot;
use super::stack::Stack;
use super::{BuildOptions, Failure, Services, chain};

use root_directories::RootDirectories;
use stage_result::StageResult;

/// Maximum size of the host's `/etc/resolv.conf`.
const MAX_RESOLV_BYTES: u64 = 1 << 20;

/// A plan that is executed, with everything that its stages share.
#[derive(Debug)]
pub(in crate::executor) struct BuildState<'a> {
    pub(in crate::executor) services: &'a Services<'a>,
    pub(in crate::executor) options: &'a BuildOptions,
    pub(in crate::executor) inputs: &'a BuildInputs<'a>,
    pub(in crate::executor) caches: &'a BuildCaches,
    pub(in crate::executor) plan: &'a Plan,
    pub(in crate::executor) images: &'a ImageTable,
    /// Lookup of steps in the store and in this build.
    pub(in crate::executor) steps: StepCache<'a>,
    pub(in crate::executor) context_directories: ContextDirectories,
    pub(in crate::executor) roots: RootDirectories,
    /// Cache mounts that `--no-cache` has emptied in this build.
    pub(in crate::executor) emptied_caches: Mutex<BTreeSet<CacheKey>>,
    stages: Vec<Slot<StageResult>>,
    resolv_conf: OnceLock<Vec<u8>>,
    /// The network of steps with `--network=private`, and the directory of its files.
    network: Mutex<Option<(Arc<PrivateNetwork>, WorkDirectory)>>,
    /// Error while the layer of a RUN was hashed and the next step was running already. That step then
    /// ends only because the build is cancelled.
    late: Mutex<Option<Failure>>,
}

impl<'a> BuildState<'a> {
    /// Returns the state of a plan of which nothing has been executed.
    pub(in crate::executor) fn new(
        inputs: &'a BuildInputs<'a>,
        caches: &'a BuildCaches,
        plan: &'a Plan,
        images: &'a ImageTable,
    ) -> Self {
        let (services, options) = (inputs.services, inputs.options);
        let explainer = Explainer::new(services, options, plan, images);
        Self {
            services,
            options,
            inputs,
            caches,
            plan,
            images,
            steps: StepCache::new(services, caches, explainer),
            context_directories: ContextDirectories::default(),
            roots: RootDirectories::new(options.max_in_memory),
            emptied_caches: Mutex::default(),
            stages: plan.stages.iter().map(|_stage| Slot::new()).collect(),
            resolv_conf: OnceLock::new(),
            network: Mutex::default(),
            late: Mutex::default(),
        }
    }

    /// Returns the slot that the result of a stage is put into.
    pub(in crate::executor) fn stage_slot(&self, number: usize) -> &Slot<StageResult> {
        self.stages.get(number).expect("a plan names its own stages")
    }

    /// Returns the result of a stage; waits for it.
    ///
    /// # Errors
    /// The error of the stage.
    pub(in crate::executor) fn stage(&self, number: usize) -> Result<StageResult, Failure> {
        self.stage_slot(number).wait()
    }

    /// Sets the result of a stage whose steps were all found, so that others can read its files.
    pub(in crate::executor) fn set_found_stage(&self, number: usize, stack: &Stack) {
        let (stack, history) = (stack.clone(), Arc::default());
        let done = self.stage_slot(number).fill(|| Ok(StageResult { number, stack, history }));
        done.expect("it is what was put in");
    }

    /// Returns the key of an operation for this build, which may clamp file times.
    pub(in crate::executor) fn clamped(&self, key: OperationKey) -> OperationKey {
        key.clamped(self.options.layer_options().clamp_s)
    }

    /// Cancels the build because of an error that no stage returns by itself.
    pub(in crate::executor) fn fail_late(&self, error: &Failure) {
        pool::lock(&self.late).get_or_insert(Failure::clone(error));
        self.services.cancel.fail();
    }

    /// Returns the first error that [`Self::fail_late`] was given.
    pub(in crate::executor) fn late_failure(&self) -> Option<Failure> {
        pool::lock(&self.late).clone()
    }

    /// Returns the `/etc/resolv.conf` of a step, empty if the host's cannot be read.
    ///
    /// If systemd-resolved wrote the address of its own stub there, the stub works for steps that share the
    /// host's network; in a private one, pasta passes the queries on.
    pub(in crate::executor) fn resolv_conf(&self, network: Network) -> Cow<'_, [u8]> {
        let path = Path::new("/etc/resolv.conf");
        let own = self
            .resolv_conf
            .get_or_init(|| pathio::read(path, MAX_RESOLV_BYTES).unwrap_or_default());
        if network == Network::Private { private_resolv_conf(own) } else { Cow::Borrowed(own) }
    }

    /// Returns the private network of this build, and starts it for the first step that needs it.
    pub(in crate::executor) fn private_network(&self) -> Result<Arc<PrivateNetwork>, SandboxError> {
        let mut started = pool::lock(&self.network);
        if let Some((network, _work)) = &*started {
            return Ok(Arc::clone(network));
        }
        let failed = |error: StoreError| SandboxError::NoPrivateNetwork {
            reason: chain(&error),
            help: "check the store".to_owned(),
        };
        let work = self.services.store.work_directory().map_err(failed)?;
        let search = self.services.environment.get("PATH");
        let forwards_dns = matches!(self.resolv_conf(Network::Private), Cow::Owned(_));
        let directory = work.path();
        let search = search.map_or("", String::as_str);
        let options = PrivateNetworkOptions { search, directory, forwards_dns };
        let network = Arc::new(PrivateNetwork::start(&options)?);
        *started = Some((Arc::clone(&network), work));
        Ok(network)
    }
}

/// Replaces name servers at loopback addresses, which a private network does not reach.
fn private_resolv_conf(own: &[u8]) -> Cow<'_, [u8]> {
    let is_local = |line: &str| {
        let server = line.strip_prefix("nameserver").map(str::trim);
        let address = server.and_then(|server| server.parse::<IpAddr>().ok());
        address.is_some_and(|address| address.is_loopback())
    };
    let text = String::from_utf8_lossy(own);
    if !text.lines().any(is_local) {
        return Cow::Borrowed(own);
    }
    let line = |line: &str| {
        if is_local(line) { format!("nameserver {NAME_SERVER}\n") } else { format!("{line}\n") }
    };
    Cow::Owned(text.lines().map(line).collect::<String>().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_the_loopback_are_replaced() {
        for (own, want) in [
            ("nameserver 10.0.0.1\nsearch x\n", None),
            (
                "nameserver 127.0.0.53\noptions edns0",
                Some("nameserver 169.254.1.1\noptions edns0\n"),
            ),
            (
                "nameserver ::1\nnameserver 10.0.0.1\n",
                Some("nameserver 169.254.1.1\nnameserver 10.0.0.1\n"),
            ),
            ("", None),
        ] {
            let want = want.unwrap_or(own).as_bytes();
            assert_eq!(private_resolv_conf(own.as_bytes()), want, "{own}");
        }
    }
}
