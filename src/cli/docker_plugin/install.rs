//! `rbuild docker-plugin`: makes docker's client run rbuild.
#![expect(clippy::disallowed_methods, reason = "each error is reported with its path")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::cli::args::docker_plugin::{DockerPluginCommand, PluginName};
use crate::cli::display::stdout::say;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::registry::{ConfigFileError, builder_alias, set_builder_alias};

/// Directory of docker's plugins, below the directory of `config.json`.
const PLUGINS: &str = "cli-plugins";

/// Installs or removes the plugin.
pub(crate) fn run(
    command: &DockerPluginCommand,
    environment: &Environment,
) -> Result<(), CliError> {
    let directory = environment
        .docker_config()
        .ok_or_else(|| CliError::new("error: HOME is not set: set DOCKER_CONFIG", Exit::Usage))?;
    match command {
        DockerPluginCommand::Install(args) => install(&directory, args.name, args.force),
        DockerPluginCommand::Uninstall => uninstall(&directory),
    }
}

fn install(directory: &Path, name: PluginName, force: bool) -> Result<(), CliError> {
    let program = std::env::current_exe().and_then(fs::canonicalize);
    let program = program.map_err(|error| failed("find the program of this process", &error))?;
    let plugins = directory.join(PLUGINS);
    fs::create_dir_all(&plugins).map_err(|error| failed_at("create", &plugins, &error))?;
    let link = link(directory, name);
    if !force && !is_ours(&link) && link.symlink_metadata().is_ok() {
        let text = format!(
            "error: {} is another program's plugin: give --force to replace it, or `--as rbuild` to \
             install beside it",
            link.display()
        );
        return Err(CliError::new(text, Exit::Usage));
    }
    remove(&link)?;
    symlink(&program, &link).map_err(|error| failed_at("create", &link, &error))?;
    say!("linked {} to {}", link.display(), program.display());
    if name == PluginName::Rbuild {
        set_builder_alias(directory, Some("rbuild")).map_err(|error| config_failed(&error))?;
        say!("docker build, docker builder and docker image build now run rbuild");
    } else {
        say!("docker build, docker buildx and docker compose build now run rbuild");
    }
    Ok(())
}

fn uninstall(directory: &Path) -> Result<(), CliError> {
    let mut n_removed = 0;
    for name in [PluginName::Buildx, PluginName::Rbuild] {
        let link = link(directory, name);
        if is_ours(&link) {
            remove(&link)?;
            say!("removed {}", link.display());
            n_removed += 1;
        }
    }
    let alias = builder_alias(directory).map_err(|error| config_failed(&error))?;
    if alias.as_deref() == Some("rbuild") {
        set_builder_alias(directory, None).map_err(|error| config_failed(&error))?;
        say!("removed the alias of `docker builder`");
        n_removed += 1;
    }
    if n_removed == 0 {
        say!("rbuild is not installed as a plugin in {}", directory.display());
    }
    Ok(())
}

fn link(directory: &Path, name: PluginName) -> PathBuf {
    let name = match name {
        PluginName::Buildx => "docker-buildx",
        PluginName::Rbuild => "docker-rbuild",
    };
    directory.join(PLUGINS).join(name)
}

/// Returns whether the file is a link to a program of this name.
fn is_ours(link: &Path) -> bool {
    let Ok(target) = fs::read_link(link) else { return false };
    target.file_name().is_some_and(|name| name == "rbuild")
}

fn remove(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed_at("remove", path, &error)),
        _ => Ok(()),
    }
}

fn failed_at(verb: &str, path: &Path, error: &std::io::Error) -> CliError {
    failed(&format!("{verb} {}", path.display()), error)
}

fn failed(what: &str, error: &std::io::Error) -> CliError {
    CliError::new(format!("error: cannot {what}: {error}"), Exit::Environment)
}

fn config_failed(error: &ConfigFileError) -> CliError {
    CliError::from_error(error, Exit::Environment)
}
