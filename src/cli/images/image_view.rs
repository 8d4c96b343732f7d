//! An image and the contents of its layers, for `inspect` and `diff`.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::archive::PackedListing;
use crate::image::{Image, ImageLayer};
use crate::oci::{DiffId, History};
use crate::store::{Store, StoreError};
use crate::tree::{LayerEffect, LayerStats};

use super::config_text::one_line;
use super::image_size;

/// An image with its layers.
#[derive(Debug)]
pub(crate) struct ImageView {
    pub(crate) image: Image,
    /// From base to top.
    pub(crate) layers: Vec<LayerView>,
    /// Statistics of the layers that are in the store.
    pub(crate) survey: LayerStats,
}

/// A layer of an image.
#[derive(Debug)]
pub(crate) struct LayerView {
    pub(crate) diff_id: DiffId,
    /// Its entry of the history, if there is one.
    pub(crate) history: Option<History>,
    /// Length of the uncompressed tar; `None` if it was never measured.
    pub(crate) tar_bytes: Option<u64>,
    /// Length of the compressed blob, here or in a registry.
    pub(crate) packed_bytes: Option<u64>,
    /// Its contents; `None` if it is not in the store.
    pub(crate) files: Option<LayerFiles>,
}

/// The contents of a layer.
#[derive(Debug)]
pub(crate) struct LayerFiles {
    pub(crate) listing: Arc<PackedListing>,
    /// Its effect. Missing layers below count as empty.
    pub(crate) effect: LayerEffect,
    /// True if all layers below are in the store.
    pub(crate) is_exact: bool,
}

impl ImageView {
    /// Reads the layers that are in the store.
    ///
    /// # Errors
    /// [`StoreError`], if the store cannot be read.
    pub(crate) fn of(store: &Store, image: Image) -> Result<Self, StoreError> {
        let mut history = image.config().history.iter().filter(|entry| !entry.empty_layer);
        let (mut layers, mut survey) = (Vec::new(), LayerStats::default());
        let mut is_exact = true;
        for layer in image.layers() {
            let mut view = LayerView::of(store, layer, history.next().cloned())?;
            if store.has_layer(layer.diff_id)? {
                let listing = store.listing(layer.diff_id)?;
                survey.push(&*listing);
                let effect = survey.layers().last().copied().unwrap_or_default();
                view.files = Some(LayerFiles { listing, effect, is_exact });
                // Listing a layer for the first time measures it.
                view.tar_bytes = store.tar_bytes(layer.diff_id)?;
            } else {
                is_exact = false;
            }
            layers.push(view);
        }
        Ok(Self { image, layers, survey })
    }

    /// Returns an image of a registry, without contents of layers.
    pub(crate) fn remote(image: Image) -> Self {
        let mut history = image.config().history.iter().filter(|entry| !entry.empty_layer);
        let layers = image.layers().iter().map(|layer| {
            let blob = layer.pulled.as_ref().filter(|blob| blob.digest != layer.diff_id.digest());
            // An uncompressed blob has the length of the tar.
            let tar_bytes = if blob.is_none() { Some(layer.size) } else { None };
            let packed_bytes = blob.map(|blob| blob.size);
            let (diff_id, history) = (layer.diff_id, history.next().cloned());
            LayerView { diff_id, history, tar_bytes, packed_bytes, files: None }
        });
        let layers = layers.collect();
        Self { image, layers, survey: LayerStats::default() }
    }

    /// Returns the number of layers that are not in the store.
    pub(crate) fn n_missing(&self) -> usize {
        self.layers.iter().filter(|layer| layer.files.is_none()).count()
    }

    /// Returns the bytes of all layers, uncompressed; `None` if one is unknown.
    pub(crate) fn tar_bytes(&self) -> Option<u64> {
        self.layers.iter().map(|layer| layer.tar_bytes).sum()
    }

    /// Returns the bytes of all layers, compressed; `None` if one was never compressed.
    pub(crate) fn packed_bytes(&self) -> Option<u64> {
        self.layers.iter().map(|layer| layer.packed_bytes).sum()
    }

    /// Returns the position of a layer, from 1; the highest one of a repeated layer.
    pub(crate) fn number_of(&self, diff_id: DiffId) -> Option<usize> {
        self.layers.iter().rposition(|layer| layer.diff_id == diff_id).map(|at| at + 1)
    }
}

impl LayerView {
    fn of(store: &Store, layer: &ImageLayer, history: Option<History>) -> Result<Self, StoreError> {
        let diff_id = layer.diff_id;
        let packed_bytes = image_size::packed_bytes(store, layer)?;
        let tar_bytes = store.tar_bytes(diff_id)?;
        Ok(Self { diff_id, history, tar_bytes, packed_bytes, files: None })
    }

    /// Returns the instruction that created it, on one line; empty if it is unknown.
    pub(crate) fn instruction(&self) -> String {
        let text = self.history.as_ref().and_then(|entry| entry.created_by.as_deref());
        text.map_or_else(String::new, instruction)
    }
}

/// Returns the instruction of a history entry, without the decorations of builders.
fn instruction(created_by: &str) -> String {
    let text = created_by.trim().trim_end_matches("# buildkit").trim();
    let text = &without_arguments(text);
    let text = match text.strip_prefix("/bin/sh -c #(nop)") {
        Some(instruction) => instruction.trim().to_owned(),
        None => match text.strip_prefix("/bin/sh -c ") {
            Some(command) => format!("RUN {}", command.trim()),
            None => text.replacen("RUN /bin/sh -c ", "RUN ", 1),
        },
    };
    one_line(&text)
}

/// Removes the build arguments of a RUN, `|N NAME=VALUE…` before its command.
fn without_arguments(text: &str) -> String {
    let Some((n, words)) = text.strip_prefix("RUN |").and_then(|rest| rest.split_once(' ')) else {
        return text.to_owned();
    };
    if let Some((_, command)) = words.split_once("/bin/sh -c ") {
        return format!("RUN {command}");
    }
    // With another shell or none, values with blanks cannot be distinguished from the command.
    let n_arguments = n.parse().unwrap_or(0);
    let command: Vec<&str> = words.split(' ').skip(n_arguments).collect();
    format!("RUN {}", command.join(" "))
}

/// Returns the Unix time of an RFC 3339 time, as configs have it (image-spec, config.md).
pub(crate) fn time_s(text: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::instruction;

    #[test]
    fn instructions_are_shown_as_they_were_typed() {
        for (text, want) in [
            ("RUN /bin/sh -c make # buildkit", "RUN make"),
            ("COPY a b # buildkit", "COPY a b"),
            ("/bin/sh -c #(nop)  CMD [\"sh\"]", "CMD [\"sh\"]"),
            ("/bin/sh -c apt-get update", "RUN apt-get update"),
            ("# debian.sh --arch 'amd64'", "# debian.sh --arch 'amd64'"),
            ("RUN |1 A=1 2 /bin/sh -c a\nb\u{1b}[2J", "RUN a\\nb\\u{1b}[2J"),
            ("RUN |2 A=1 B= python x.py", "RUN python x.py"),
        ] {
            assert_eq!(instruction(text), want);
        }
    }
}
