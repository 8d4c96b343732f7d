//! `rbuild store verify`: checks the store for damage, and repairs it.

use super::{CliError, Environment, Exit, Global, open_store_by, wait_alone};
use crate::cli::args::store::{StoreArgs, StoreCommand, VerifyArgs};
use crate::cli::display::stdout::say;
use crate::oci::Reference;
use crate::store::{Store, VerifyFinding, VerifySummary};

/// Runs a subcommand of `rbuild store`.
pub(crate) fn run(
    args: &StoreArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    match &args.command {
        StoreCommand::Verify(verify) => self::verify(verify, global, environment),
    }
}

fn verify(args: &VerifyArgs, global: &Global, environment: &Environment) -> Result<(), CliError> {
    let store = open_store_by(global, environment, |root, options| {
        Store::open_to_verify(root, options, args.repair)
    })?;
    if args.repair {
        wait_alone(&store)?;
    }
    let mut report = |finding: VerifyFinding| match finding {
        VerifyFinding::Damaged(damage) => {
            say!("damaged: {}: {}", shown(&damage.subject), damage.reason);
        }
        VerifyFinding::Repaired { subject, action } => {
            say!("repaired: {}: {action}", shown(&subject));
        }
    };
    let verified = store
        .verify(args.repair, &mut report)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    say!("{}", summary(&verified, args.repair));
    if verified.n_damaged > verified.n_repaired {
        return Err(CliError::reported(Exit::Build));
    }
    Ok(())
}

/// Shortens an image name to its familiar form. Paths in the store are returned unchanged.
fn shown(subject: &str) -> String {
    let is_path =
        ["blobs/", "layers/", "tags/", "index.db"].iter().any(|top| subject.starts_with(top));
    let name = (!is_path).then(|| subject.parse::<Reference>().ok()).flatten();
    name.map_or_else(|| subject.to_owned(), |name| name.familiar())
}

fn summary(verified: &VerifySummary, is_repairing: bool) -> String {
    let VerifySummary { n_blobs, n_layers, n_files, n_images, n_damaged, n_repaired } = verified;
    let plural = |is_one: bool| if is_one { "" } else { "s" };
    let checked = format!(
        "checked {n_blobs} blob{}, {n_layers} layer{} with {n_files} file{}, {n_images} name{}",
        plural(*n_blobs == 1),
        plural(*n_layers == 1),
        plural(*n_files == 1),
        plural(*n_images == 1)
    );
    match (n_damaged, is_repairing) {
        (0, _) => format!("{checked}: no damage found"),
        (_, true) => format!("{checked}: {n_damaged} damaged, {n_repaired} repaired"),
        (_, false) => {
            format!("{checked}: {n_damaged} damaged; run `rbuild store verify --repair`")
        }
    }
}
