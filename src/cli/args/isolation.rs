//! The option `--isolation`.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::sandbox::IsolationChoice;

/// The names of the kinds, in the order of their strength.
const NAMES: [&str; 4] = ["auto", "namespace", "chroot", "emulated"];

/// Returns the kind with this name.
pub(in crate::cli) fn of_name(name: &str) -> Option<IsolationChoice> {
    Some(match name {
        "auto" => IsolationChoice::Auto,
        "namespace" => IsolationChoice::Namespace,
        "chroot" => IsolationChoice::Chroot,
        "emulated" => IsolationChoice::Emulated,
        _ => return None,
    })
}

/// Returns the parser of the option's value.
pub(super) fn choice() -> impl TypedValueParser<Value = IsolationChoice> {
    PossibleValuesParser::new(NAMES).map(|name| of_name(&name).unwrap_or_default())
}
