//! `rbuild rebase IMAGE --onto BASE`: puts an image on a newer version of its base.

use super::{CliError, Environment, Exit, Global, find, open_store, reference, with_services};
use crate::cli::args::rebase::RebaseArgs;
use crate::cli::display::stderr;
use crate::cli::display::stdout::say;
use crate::executor::{self, Services};
use crate::image::{self, BASE_DIGEST, BASE_NAME, ExportError, Image, Rebase, StoredImages};
use crate::oci::{Descriptor, Digest, Index, MediaType, Platform, Reference, pretty};
use crate::store::StoreError;

type Result<T> = std::result::Result<T, CliError>;

/// Rebases the image for each of its platforms, names the result, and prints its digest.
pub(crate) fn run(args: &RebaseArgs, global: &Global, environment: &Environment) -> Result<()> {
    let store = open_store(global, environment)?;
    let selected = find::image(&store, &args.image)?;
    let onto = reference(&args.onto)?;
    let old = args.base.as_deref().map(reference).transpose()?;
    let mut names: Vec<Reference> =
        args.tag.iter().map(|name| reference(name)).collect::<Result<_>>()?;
    if names.is_empty() {
        names.extend(selected.name.clone());
    }
    if names.is_empty() {
        let text =
            "error: an image that is given by its id needs a name for the result: add -t NAME";
        return Err(CliError::new(text, Exit::Usage));
    }
    let loaded = StoredImages::load(&store, selected.top).map_err(unreadable)?;
    let top = with_services(&store, environment, |services| {
        let rebasing = Rebasing { services, onto: &onto, old: old.as_ref(), shown: &args.image };
        let entries: Vec<Descriptor> =
            loaded.images.iter().map(|image| rebasing.one(image)).collect::<Result<_>>()?;
        match entries.as_slice() {
            [only] if !loaded.is_index => Ok(only.digest),
            _ => {
                let index = Index {
                    schema_version: 2,
                    media_type: Some(MediaType::OciIndex),
                    manifests: entries,
                    annotations: loaded.annotations.clone(),
                };
                store.put_blob(&pretty(&index)).map_err(failed)
            }
        }
    })?;
    for name in &names {
        if let Some(replaced) = image::replaced(&store, name, top).map_err(failed)? {
            stderr::remark(&replaced.to_string());
        }
        store.tags().set(name, top).map_err(failed)?;
        say!("{name} {top}");
    }
    Ok(())
}

/// The bases of one command.
struct Rebasing<'a> {
    services: &'a Services<'a>,
    onto: &'a Reference,
    old: Option<&'a Reference>,
    /// The image as it was typed.
    shown: &'a str,
}

impl Rebasing<'_> {
    /// Rebases the image for one platform.
    fn one(&self, image: &Image) -> Result<Descriptor> {
        let platform = image.platform();
        // The pull replaces what the store knows about the name.
        let known = self.old_base(image, &platform)?;
        let (digest, new) = self.new_base(&platform)?;
        let name = self.onto.to_string();
        let bases = Rebase { old: &known, new: &new, name: &name, digest };
        image::rebase(self.services.store, image, &bases).map_err(unreadable)
    }

    fn new_base(&self, platform: &Platform) -> Result<(Digest, Image)> {
        match executor::pull(self.services, self.onto, platform) {
            Ok(digest) => Ok((digest, self.load(digest, platform)?)),
            Err(error) => match self.in_store(self.onto, platform)? {
                Some(found) => Ok(found),
                None => Err(CliError::from_error(&*error, Exit::Environment)),
            },
        }
    }

    /// Returns the base that the image was built on.
    fn old_base(&self, image: &Image, platform: &Platform) -> Result<Image> {
        if let Some(old) = self.old {
            if let Some((_, found)) = self.in_store(old, platform)? {
                return Ok(found);
            }
            let digest = executor::pull(self.services, old, platform);
            let digest =
                digest.map_err(|error| CliError::from_error(&*error, Exit::Environment))?;
            return self.load(digest, platform);
        }
        let annotation = |name: &str| image.annotations().get(name);
        if let Some((name, digest)) = annotation(BASE_NAME).zip(annotation(BASE_DIGEST))
            && let Ok(name) = name.parse::<Reference>()
            && let Ok(digest) = digest.parse::<Digest>()
        {
            if self.services.store.has_blob(digest) {
                return self.load(digest, platform);
            }
            if let Ok(pulled) = executor::pull(self.services, &name.with_digest(digest), platform) {
                return self.load(pulled, platform);
            }
        }
        let known = self.in_store(self.onto, platform)?.map(|(_, known)| known);
        known.filter(|known| image::is_base(known, image)).ok_or_else(|| {
            let text = format!(
                "error: the base of {} is not known: it has no annotation about it, and {} of the store is \
                 another one\nhelp: name it with --base OLD, if possible with a digest",
                self.shown,
                self.onto.familiar()
            );
            CliError::new(text, Exit::Usage)
        })
    }

    /// Returns an image of the store: under its name, or as an earlier build resolved it.
    fn in_store(&self, name: &Reference, platform: &Platform) -> Result<Option<(Digest, Image)>> {
        let store = self.services.store;
        let tagged = store.tags().get(name).map_err(failed)?;
        let found = match tagged {
            Some(top) => Some(top),
            None => store.resolved_images().get(name, platform).map_err(failed)?,
        };
        found.map(|top| Ok((top, self.load(top, platform)?))).transpose()
    }

    fn load(&self, top: Digest, platform: &Platform) -> Result<Image> {
        let loaded = StoredImages::load(self.services.store, top).map_err(unreadable)?;
        find::for_platform(&loaded, Some(&platform.to_string()), &self.onto.familiar())
    }
}

fn unreadable(error: ExportError) -> CliError {
    CliError::from_error(&error, Exit::Environment)
}

fn failed(error: StoreError) -> CliError {
    CliError::from_error(&error, Exit::Environment)
}
