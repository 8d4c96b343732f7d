//! `--timeout` and `--step-timeout`.

use std::time::Duration;

use clap::Args;

use crate::dockerfile::syntax::parse_timeout;

use super::heading::{CHECKS, STEPS};

/// Limits on durations.
#[derive(Debug, Default, Args)]
pub(crate) struct PatienceArgs {
    /// Maximum duration of each RUN, such as 10m
    ///
    /// A RUN that takes longer is killed, and the build fails with status 124. A comment
    /// `# rbuild: timeout=1h retry=2` above a RUN overrides it for that RUN.
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, help_heading = STEPS)]
    pub(crate) step_timeout: Option<Duration>,
    /// Maximum duration of the build, such as 1h30m
    ///
    /// A build that takes longer, transfers included, is ended with status 124. Finished steps stay in
    /// the cache.
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, help_heading = CHECKS)]
    pub(crate) timeout: Option<Duration>,
}
