//! Files with the digest of the image, as kaniko writes them for Tekton and other CI systems.

use std::path::PathBuf;

use clap::Args;

use crate::oci::{Digest, Reference};

use super::heading::OUTPUT;

/// Options that write the digest of the manifest or index.
#[derive(Debug, Default, Args)]
pub(crate) struct DigestFileArgs {
    /// Write the digest of the manifest to FILE
    ///
    /// Of the manifest or index that was pushed or exported, without a line end.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(crate) digest_file: Option<PathBuf>,
    /// Write NAME@DIGEST to FILE, a line for each name
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(crate) image_name_with_digest_file: Option<PathBuf>,
    /// Write NAME:TAG@DIGEST to FILE, a line for each name
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(crate) image_name_tag_with_digest_file: Option<PathBuf>,
}

impl DigestFileArgs {
    /// Returns the files and their contents.
    pub(crate) fn contents(&self, digest: Digest, names: &[Reference]) -> Vec<(&PathBuf, String)> {
        let lines = |line: &dyn Fn(&Reference) -> String| -> String {
            names.iter().map(|name| format!("{}@{digest}\n", line(name))).collect()
        };
        let tagged = |name: &Reference| match name.tag() {
            Some(tag) => format!("{}:{tag}", name.name()),
            None => name.name(),
        };
        let plain = self.digest_file.iter().map(|path| (path, digest.to_string()));
        let named = self.image_name_with_digest_file.iter();
        let named = named.map(|path| (path, lines(&Reference::name)));
        let with_tags = self.image_name_tag_with_digest_file.iter();
        plain.chain(named).chain(with_tags.map(|path| (path, lines(&tagged)))).collect()
    }

    /// Returns the first of the options that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let all = [
            (&self.digest_file, "--digest-file"),
            (&self.image_name_with_digest_file, "--image-name-with-digest-file"),
            (&self.image_name_tag_with_digest_file, "--image-name-tag-with-digest-file"),
        ];
        all.into_iter().find(|(path, _)| path.is_some()).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_digest_and_the_names() {
        let args = DigestFileArgs {
            digest_file: Some("a".into()),
            image_name_with_digest_file: Some("b".into()),
            image_name_tag_with_digest_file: Some("c".into()),
        };
        let digest = Digest::of(b"");
        let names = ["r.example/app:1", "busybox"].map(|name| name.parse().unwrap());
        let contents = args.contents(digest, &names);
        let texts: Vec<&str> = contents.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                digest.to_string(),
                format!("r.example/app@{digest}\ndocker.io/library/busybox@{digest}\n"),
                format!("r.example/app:1@{digest}\ndocker.io/library/busybox:latest@{digest}\n"),
            ]
        );
    }
}
