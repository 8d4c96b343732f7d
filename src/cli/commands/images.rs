//! `rbuild images`

use std::time::Duration;

use super::{Complaint, Environment, Exit, Global, open_store_to_free};
use crate::cli::progress::size;
use crate::cli::stdout::say;
use crate::image::{ExportError, Image, Loaded};
use crate::oci::{Digest, Reference};
use crate::store::{Store, StoreError};

/// Characters of an id that are shown.
pub(super) const SHORT_ID: usize = 12;

pub(in crate::cli) fn run(global: &Global, environment: &Environment) -> Result<(), Complaint> {
    let store = open_store_to_free(global, environment)?;
    let failed = |error: StoreError| Complaint::from_error(&error, Exit::Environment);
    let unreadable = |error: ExportError| Complaint::from_error(&error, Exit::Environment);
    say!("{:50} {:12} {:>16} {:>10}", "NAME", "ID", "CREATED", "SIZE");
    for tag in store.tags().map_err(failed)? {
        let (id, n_bytes) = id_and_size(&store, tag.manifest).map_err(unreadable)?;
        let id: String = id.hex().chars().take(SHORT_ID).collect();
        let name = tag.name.parse::<Reference>().map_or(tag.name.clone(), |name| name.familiar());
        let age = ago(environment.now_s.saturating_sub(tag.updated_s));
        say!("{name:50} {id:12} {age:>16} {:>10}", size(n_bytes));
    }
    Ok(())
}

/// An image's id and the bytes of its layers; for several platforms, the index's and all together.
pub(super) fn id_and_size(store: &Store, top: Digest) -> Result<(Digest, u64), ExportError> {
    let loaded = Loaded::load(store, top)?;
    let id = match loaded.images.as_slice() {
        [only] if !loaded.is_index => only.config_digest(),
        _ => top,
    };
    let layers = loaded.images.iter().flat_map(Image::layers);
    Ok((id, layers.map(|layer| layer.size).sum()))
}

/// As in `3 minutes ago`.
pub(super) fn ago(seconds: i64) -> String {
    let age = Duration::from_secs(seconds.try_into().unwrap_or(0)).as_secs();
    let units = [
        ("year", 31_536_000),
        ("month", 2_592_000),
        ("week", 604_800),
        ("day", 86_400),
        ("hour", 3_600),
        ("minute", 60),
    ];
    for (unit, length) in units {
        let n = age / length;
        if n > 0 {
            let plural = if n == 1 { "" } else { "s" };
            return format!("{n} {unit}{plural} ago");
        }
    }
    "just now".to_owned()
}

#[cfg(test)]
mod tests {
    use super::ago;

    #[test]
    fn ages_are_rounded_down() {
        for (seconds, want) in [
            (-5, "just now"),
            (60, "1 minute ago"),
            (7_300, "2 hours ago"),
            (1_209_600, "2 weeks ago"),
        ] {
            assert_eq!(ago(seconds), want);
        }
    }
}
