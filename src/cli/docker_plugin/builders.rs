//! The commands of Buildx about builders. rbuild has one, which needs no start: itself.

use serde_json::json;

use crate::cli::display::stdout::{self, say};
use crate::oci::Platform;

use super::call::BuilderCommand;
use super::version;

/// Name of the builder, which docker's client expects for its default context.
const NAME: &str = "default";
/// Name of the driver, as Buildx calls the builder of an engine.
const DRIVER: &str = "docker";

/// Answers a command.
pub(super) fn run(command: &BuilderCommand) {
    match command {
        // docker/actions-toolkit reads the word after the first space.
        BuilderCommand::Version => say!("rbuild {} {}", version(), env!("CARGO_PKG_VERSION")),
        BuilderCommand::List { is_json: false } => list(),
        BuilderCommand::List { is_json: true } => stdout::json_line(&json!({
            "Name": NAME,
            "Driver": DRIVER,
            "Current": true,
            "Dynamic": false,
            "Nodes": [{
                "Name": NAME,
                "Endpoint": NAME,
                "Status": "running",
                "Version": version(),
                "Platforms": [platform()],
            }],
        })),
        BuilderCommand::Inspect(name) => inspect(name.as_deref().unwrap_or(NAME)),
        BuilderCommand::Create(name) => say!("{}", name.as_deref().unwrap_or(NAME)),
        BuilderCommand::Nothing => {}
    }
}

fn platform() -> String {
    Platform::host().to_string()
}

fn list() {
    let width = version().len();
    say!("NAME/NODE     DRIVER/ENDPOINT   STATUS    {:width$}   PLATFORMS", "BUILDKIT");
    say!("{NAME}*      {DRIVER}");
    say!(" \\_ {NAME}    \\_ {NAME}       running   {}   {}", version(), platform());
}

/// Shows a builder under the name that was asked for: docker's actions create one and then read these
/// lines.
fn inspect(name: &str) {
    say!("Name:          {name}");
    say!("Driver:        {DRIVER}");
    say!();
    say!("Nodes:");
    say!("Name:             {name}");
    say!("Endpoint:         {NAME}");
    say!("Status:           running");
    say!("BuildKit version: {}", version());
    say!("Platforms:        {}", platform());
}
