//! The option `--isolation`.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::sandbox::IsolationChoice;

/// The names of the kinds, in the order of their strength.
const NAMES: [&str; 4] = ["auto", "namespace", "chroot", "emulated"];
/// Words of buildah for a runtime of the OCI, as root and as another user. rbuild's own namespaces are what
/// they stand for.
const BUILDAH: [&str; 2] = ["oci", "rootless"];

/// Returns the kind with this name.
pub(in crate::cli) fn of_name(name: &str) -> Option<IsolationChoice> {
    Some(match name {
        "auto" => IsolationChoice::Auto,
        "namespace" | "oci" | "rootless" => IsolationChoice::Namespace,
        "chroot" => IsolationChoice::Chroot,
        "emulated" => IsolationChoice::Emulated,
        _ => return None,
    })
}

/// Returns the parser of the option's value.
pub(super) fn choice() -> impl TypedValueParser<Value = IsolationChoice> {
    let hidden = BUILDAH.map(|name| PossibleValue::new(name).hide(true));
    let all = NAMES.map(PossibleValue::new).into_iter().chain(hidden);
    PossibleValuesParser::new(all).map(|name| of_name(&name).unwrap_or_default())
}
