//! The ssh agent for git: the caller's own, or rbuild's for key files.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use crate::pathio::{Context as _, PathError};
use crate::store::{StoreError, WorkDirectory};

use crate::executor::{AgentSource, Services};

use super::ssh_agent::Agents;

/// Name of the socket in its directory.
const NAME: &str = "agent";

/// An agent that answers as long as this value lives.
#[derive(Debug)]
pub(in crate::executor) enum GitAgent {
    /// Socket of the caller's agent.
    Socket(PathBuf),
    /// An agent of rbuild, for key files.
    Own {
        /// Path of its socket.
        socket: PathBuf,
        /// Ends the agent when dropped.
        _agents: Agents,
        /// Keeps the socket's path valid, which names this descriptor.
        _directory: OwnedFd,
        /// Removes the socket when dropped.
        _work: WorkDirectory,
    },
}

impl GitAgent {
    /// Returns the path of the socket.
    pub(in crate::executor) fn socket(&self) -> &Path {
        match self {
            Self::Socket(path) | Self::Own { socket: path, .. } => path,
        }
    }
}

/// Returns the agent that the caller gave the build: the one with the id `default`, or else the
/// first.
pub(in crate::executor) fn git_agent(
    services: &Services<'_>,
) -> Result<Option<GitAgent>, StoreError> {
    let agents = &services.provided.agents;
    let Some(source) = agents.get("default").or_else(|| agents.values().next()) else {
        return Ok(None);
    };
    if let AgentSource::Socket(path) = source {
        return Ok(Some(GitAgent::Socket(path.clone())));
    }
    let work = services.store.work_directory()?;
    let (directory, own) = listen(&work, source)?;
    // A socket's path has at most 108 bytes (unix(7)). By descriptor it is short wherever the store
    // is.
    let place = format!("/proc/{}/fd/{}", std::process::id(), directory.as_raw_fd());
    let socket = PathBuf::from(place).join(NAME);
    Ok(Some(GitAgent::Own { socket, _agents: own, _directory: directory, _work: work }))
}

fn listen(work: &WorkDirectory, source: &AgentSource) -> Result<(OwnedFd, Agents), PathError> {
    let shown = work.path().join(NAME);
    let directory = work.as_fd().try_clone_to_owned().context("open", &shown)?;
    let mut agents = Agents::default();
    agents.listen(directory.as_fd(), NAME, source).context("listen at", &shown)?;
    Ok((directory, agents))
}
