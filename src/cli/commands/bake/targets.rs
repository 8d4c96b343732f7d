//! The targets of a bake as builds.

use std::path::Path;

use super::build::BakeTarget;
use super::entitlements::Grants;
use crate::bake::{Definitions, Target};
use crate::cli::args::Global;
use crate::cli::args::bake::BakeArgs;
use crate::cli::args::bake_target::{self, BakedArgs};
use crate::cli::args::build::Allow;
use crate::cli::commands::build;
use crate::cli::defaults::load_for_docker;
use crate::cli::display::stdout::say;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::inputs::dockerfile::MAX_FILE_BYTES;
use crate::pathio::inside::read_given;

/// Permissions about outputs.
const OF_OUTPUTS: [(Allow, &str); 2] =
    [(Allow::LocalSpecial, "local.special"), (Allow::LocalDelete, "buildx.local.delete")];

type Result<T> = std::result::Result<T, CliError>;

/// Returns the targets as builds, after a check of what they ask for.
///
/// # Errors
/// A usage error for a value that is not valid, or for permissions that are not granted.
pub(super) fn all(
    args: &BakeArgs,
    definitions: &Definitions,
    environment: &Environment,
) -> Result<Vec<BakeTarget>> {
    granted(args, definitions, environment)?;
    let targets = definitions.targets.iter();
    targets.map(|(name, target)| one(name, target, &args.allow, environment)).collect()
}

fn one(
    name: &str,
    target: &Target,
    allowed: &[String],
    environment: &Environment,
) -> Result<BakeTarget> {
    let failed = |text: String| CliError::new(format!("error: target {name}: {text}"), Exit::Usage);
    let mut baked = bake_target::arguments(target).map_err(failed)?;
    let BakedArgs { args, local_dockerfile, .. } = &mut baked;
    // Outputs need these; a definition has no entitlement for them.
    for (permission, name) in OF_OUTPUTS {
        args.allow.extend(allowed.iter().any(|given| given == name).then_some(permission));
    }
    if let Some(path) = local_dockerfile {
        let text = read_given(Path::new(path), MAX_FILE_BYTES);
        let text =
            text.map_err(|error| CliError::from_error(&error, Exit::Build).of_target(name))?;
        args.bake.dockerfile = Some(String::from_utf8_lossy(&text).into_owned());
    }
    if environment.is_docker_plugin && !target.linked && args.inspection().is_none() {
        load_for_docker(&mut args.outputs, args.platform.len() > 1, environment);
    }
    Ok(BakeTarget { name: name.to_owned(), baked })
}

/// Checks that the command line grants what the targets ask for.
fn granted(args: &BakeArgs, definitions: &Definitions, environment: &Environment) -> Result<()> {
    let checks = environment.get("BUILDX_BAKE_ENTITLEMENTS_FS");
    let permits_paths = checks.is_some_and(|value| ["0", "false"].contains(&value));
    let mut grants = Grants::new(&args.allow, Path::new("."), permits_paths)?;
    let granted = &definitions.granted;
    // What the command line itself names needs no further permission.
    for path in &granted.read {
        grants.add(&format!("fs.read={path}"))?;
    }
    for path in &granted.write {
        grants.add(&format!("fs.write={path}"))?;
    }
    granted.entitlements.iter().try_for_each(|name| grants.add(name))?;
    let mut missing: Vec<String> =
        definitions.targets.values().flat_map(|target| grants.missing(target)).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let options: Vec<String> = missing.iter().map(|name| format!("--allow {name}")).collect();
    let text = format!(
        "error: the definitions ask for more than the command line permits: grant it with {}",
        options.join(" ")
    );
    Err(CliError::new(text, Exit::Usage))
}

/// Inspects the Dockerfiles of the targets instead of building them, one after the other.
///
/// # Errors
/// The first one, after all were inspected.
pub(super) fn inspect(
    targets: &[BakeTarget],
    global: &Global,
    environment: &Environment,
) -> Result<()> {
    let mut done = Ok(());
    for target in targets.iter().filter(|target| target.baked.args.inspection().is_some()) {
        if targets.len() > 1 {
            say!("{}:", target.name);
        }
        let result = build::run(&target.baked.args, global, environment);
        done = done.and(result.map_err(|error| error.of_target(&target.name)));
    }
    done
}
