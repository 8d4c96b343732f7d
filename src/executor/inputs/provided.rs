//! What the caller lends to steps, and what leaves no trace in the image.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::ssh_key::SshKey;

/// Secrets and ssh agents, by id.
#[derive(Clone, Default)]
pub struct Lent {
    /// `--secret`: values as they are.
    pub secrets: BTreeMap<String, Arc<[u8]>>,
    /// `--ssh`.
    pub agents: BTreeMap<String, AgentSource>,
}

/// Where the keys of an agent are.
#[derive(Debug, Clone)]
pub enum AgentSource {
    /// With the agent that listens at this socket.
    Socket(PathBuf),
    /// Here.
    Keys(Arc<Vec<SshKey>>),
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&String> = self.secrets.keys().collect();
        f.debug_struct("Lent").field("secrets", &ids).field("agents", &self.agents).finish()
    }
}
