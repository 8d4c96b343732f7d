//! Secrets and ssh agents that the caller provides to steps. They leave no trace in the image.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::ssh_key::SshKey;

/// Secrets and ssh agents, by id.
#[derive(Clone, Default)]
pub struct Provided {
    /// Values of `--secret`, unchanged.
    pub secrets: BTreeMap<String, Arc<[u8]>>,
    /// Agents of `--ssh`.
    pub agents: BTreeMap<String, AgentSource>,
}

/// The agent behind an id of `--ssh`.
#[derive(Debug, Clone)]
pub enum AgentSource {
    /// The agent that listens at this socket.
    Socket(PathBuf),
    /// An agent of rbuild with these keys.
    Keys(Arc<Vec<SshKey>>),
}

impl fmt::Debug for Provided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&String> = self.secrets.keys().collect();
        f.debug_struct("Provided").field("secrets", &ids).field("agents", &self.agents).finish()
    }
}
