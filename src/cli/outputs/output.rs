//! Parses the value of `--output`: `type=…,dest=…`.

use std::path::PathBuf;

use crate::archive::Packing;
use crate::cli::args::compression::CompressionArgs;
use crate::cli::args::csv;
use crate::oci::{Annotation, Reference};

/// The parsed value of one `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) kind: OutputKind,
    /// Compression of new layers.
    pub(crate) packing: Packing,
    /// True if base layers are recompressed, too.
    pub(crate) force_packing: bool,
    /// True for docker's media types, false for those of OCI.
    pub(crate) docker_media_types: bool,
    /// True if file times are limited to SOURCE_DATE_EPOCH.
    pub(crate) rewrite_timestamp: bool,
    /// Names that replace those of `--tag`.
    pub(crate) names: Vec<Reference>,
    /// True if one of these names was given with a tag.
    pub(crate) has_tag: bool,
    /// True if the image is pushed without a tag.
    pub(crate) by_digest: bool,
    /// True if the image also gets names with its digest.
    pub(crate) canonical: bool,
    /// True if the image is named in the store, too.
    pub(crate) stored: bool,
    /// Prefix of the name of an image without a name in the store; its digest follows.
    pub(crate) dangling_prefix: Option<Reference>,
    /// True if the layers are unpacked in the store.
    pub(crate) unpacked: bool,
    /// True for one directory a platform; `None`: if there are several platforms.
    pub(crate) split: Option<bool>,
    /// True if the directory loses all files that are not in the image.
    pub(crate) deletes_others: bool,
    /// Time of config and history in place of SOURCE_DATE_EPOCH, in Unix seconds.
    pub(crate) epoch_s: Option<i64>,
    /// True if registries need not show a valid certificate.
    pub(crate) insecure: bool,
    /// Annotations of this output alone.
    pub(crate) annotations: Vec<Annotation>,
}

/// Destination of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// `cacheonly`: the image gets no name.
    Cache,
    /// The local store only.
    Store,
    /// The registries of all names.
    Registry,
    /// An OCI layout in one file.
    OciArchive(PathBuf),
    /// An OCI layout in a directory (image-spec, image-layout.md).
    OciDirectory(PathBuf),
    /// An archive for `docker load`.
    DockerArchive(PathBuf),
    /// The engine of docker or podman.
    Engine,
    /// A directory with the files of the image.
    Directory(PathBuf),
    /// A tar with the files of the image; `-` is standard output.
    Tar(PathBuf),
}

impl OutputKind {
    /// Returns the file or directory that is written; `-` is standard output.
    pub(crate) fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Cache | Self::Store | Self::Registry | Self::Engine => None,
            Self::OciArchive(path)
            | Self::OciDirectory(path)
            | Self::DockerArchive(path)
            | Self::Directory(path)
            | Self::Tar(path) => Some(path),
        }
    }

    /// Returns whether the output is an OCI layout, with an `index.json`.
    pub(crate) const fn is_layout(&self) -> bool {
        matches!(self, Self::OciArchive(_) | Self::OciDirectory(_) | Self::DockerArchive(_))
    }

    /// Returns whether the output has image documents, and not only files.
    pub(crate) const fn has_documents(&self) -> bool {
        !matches!(self, Self::Cache | Self::Directory(_) | Self::Tar(_))
    }
}

/// Returns the compressions of new layers that outputs need, without duplicates.
pub(crate) fn packings(outputs: &[Output]) -> Vec<Packing> {
    let packs = |output: &&Output| match output.kind {
        OutputKind::Registry | OutputKind::OciArchive(_) | OutputKind::OciDirectory(_) => true,
        OutputKind::Cache
        | OutputKind::Store
        | OutputKind::Engine
        | OutputKind::DockerArchive(_)
        | OutputKind::Directory(_)
        | OutputKind::Tar(_) => false,
    };
    let mut packings = Vec::new();
    for output in outputs.iter().filter(packs) {
        if !packings.contains(&output.packing) {
            packings.push(output.packing);
        }
    }
    packings
}

/// Values of the attribute `type`.
const TYPES: [&str; 7] = ["oci", "docker", "local", "tar", "image", "registry", "cacheonly"];

/// Attributes, and the types that support them.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("type", &TYPES),
    ("dest", &["oci", "docker", "local", "tar"]),
    ("tar", &["oci", "docker"]),
    ("name", &["image", "registry", "oci", "docker"]),
    ("push", IMAGES),
    ("push-by-digest", IMAGES),
    ("name-canonical", IMAGES),
    ("store", IMAGES),
    ("unpack", IMAGES),
    ("dangling-name-prefix", IMAGES),
    ("registry.insecure", IMAGES),
    ("oci-artifact", IMAGES),
    ("attestation-inline", IMAGES),
    ("attestation-prefix", &["local", "tar"]),
    ("source-date-epoch", &["image", "registry", "oci", "docker", "local", "tar"]),
    ("prefer-nondist-layers", PACKED),
    ("oci-mediatypes", PACKED),
    ("compression", PACKED),
    ("compression-level", PACKED),
    ("force-compression", PACKED),
    ("rewrite-timestamp", &["image", "registry", "oci", "docker", "local", "tar"]),
    ("platform-split", &["local", "tar"]),
    ("mode", &["local"]),
];
const IMAGES: &[&str] = &["image", "registry"];
const PACKED: &[&str] = &["image", "registry", "oci", "docker"];

/// Attributes of BuildKit that rbuild does not support, and alternatives.
const REFUSED: &[(&str, &str)] = &[
    ("context", "set DOCKER_HOST, or use `-o type=docker,dest=- | docker --context NAME load`"),
    ("danging-name-empty-only", "dangling-name-prefix names an image only if it has no other name"),
];

/// Attributes as they were typed.
#[derive(Debug, Default)]
struct OutputFields {
    kind: Option<String>,
    dest: Option<String>,
    tar: Option<bool>,
    push: bool,
    level: Option<i32>,
    compression: Option<String>,
    /// Names of all attributes that were given.
    given: Vec<String>,
}

/// Parses one `--output`. `compression` applies where the value does not set it.
pub(crate) fn parse(text: &str, compression: &CompressionArgs) -> Result<Output, String> {
    let mut output = Output {
        kind: OutputKind::Store,
        packing: packing(compression.kind.as_deref(), compression.level)?,
        force_packing: compression.force,
        docker_media_types: false,
        rewrite_timestamp: false,
        names: Vec::new(),
        has_tag: false,
        by_digest: false,
        canonical: false,
        stored: true,
        dangling_prefix: None,
        unpacked: false,
        split: None,
        deletes_others: false,
        epoch_s: None,
        insecure: false,
        annotations: Vec::new(),
    };
    if !text.contains('=') {
        let path = PathBuf::from(text);
        output.kind = if text == "-" { OutputKind::Tar(path) } else { OutputKind::Directory(path) };
        return Ok(output);
    }
    let mut fields = OutputFields::default();
    for field in csv::fields(text)? {
        let (name, value) = field.split_once('=').unwrap_or((&field, "true"));
        fields.set(name.trim(), value, &mut output)?;
    }
    match &fields.compression {
        // `--compression-level` belongs to `--compression`.
        Some(kind) => output.packing = packing(Some(kind), fields.level)?,
        None => {
            let level = fields.level.or(compression.level);
            output.packing = packing(compression.kind.as_deref(), level)?;
        }
    }
    output.kind = kind(&fields)?;
    // The engine is on this machine and would only decompress the layers again.
    if output.kind == OutputKind::Engine && fields.compression.is_none() && !compression.is_given()
    {
        output.packing = Packing::None;
    }
    fields.check(&output)?;
    Ok(output)
}

impl OutputFields {
    fn set(&mut self, name: &str, value: &str, output: &mut Output) -> Result<(), String> {
        let is_true = || boolean(name, value);
        match name {
            "type" => self.kind = Some(value.to_owned()),
            "dest" => self.dest = Some(value.to_owned()),
            "tar" => self.tar = Some(is_true()?),
            "push" => self.push = is_true()?,
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => {
                let level = value
                    .parse()
                    .map_err(|_bad| format!("compression-level={value} is not a number"))?;
                self.level = Some(level);
            }
            "force-compression" => output.force_packing = is_true()?,
            "oci-mediatypes" => output.docker_media_types = !is_true()?,
            "rewrite-timestamp" => output.rewrite_timestamp = is_true()?,
            "name" => output.set_names(value)?,
            "push-by-digest" => output.by_digest = is_true()?,
            "name-canonical" => output.canonical = is_true()?,
            "store" => output.stored = is_true()?,
            "unpack" => output.unpacked = is_true()?,
            "dangling-name-prefix" => output.dangling_prefix = Some(name_of(value)?),
            "platform-split" => output.split = Some(is_true()?),
            "mode" => output.deletes_others = deletes_others(value)?,
            "source-date-epoch" => output.epoch_s = Some(seconds(value)?),
            "registry.insecure" => output.insecure = is_true()?,
            // There are no attestations that these could be about.
            "attestation-prefix" => {}
            "oci-artifact" | "attestation-inline" => drop(is_true()?),
            "prefer-nondist-layers" if is_true()? => {
                return Err("prefer-nondist-layers=true is not supported: all layers are pushed, \
                            whatever their media type"
                    .to_owned());
            }
            "prefer-nondist-layers" => {}
            other => return output.set_annotation(other, value),
        }
        self.given.push(name.to_owned());
        Ok(())
    }

    /// Refuses attributes that the type does not support.
    fn check(&self, output: &Output) -> Result<(), String> {
        let kind = self.kind.as_deref().unwrap_or_default();
        for name in &self.given {
            let types =
                ATTRIBUTES.iter().find_map(|(known, types)| (known == name).then_some(*types));
            if let Some(types) = types.filter(|types| !types.contains(&kind)) {
                return Err(format!(
                    "{name} is for type={}, not for type={kind}",
                    types.join(", ")
                ));
            }
        }
        if !output.annotations.is_empty() && !output.kind.has_documents() {
            return Err(format!("type={kind} does not support annotations"));
        }
        let is_pushed = output.kind == OutputKind::Registry;
        if output.by_digest && !is_pushed {
            return Err("push-by-digest needs push=true".to_owned());
        }
        if output.by_digest && output.has_tag {
            return Err("push-by-digest needs names without a tag".to_owned());
        }
        Ok(())
    }
}

impl Output {
    fn set_names(&mut self, value: &str) -> Result<(), String> {
        for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            self.has_tag |= has_tag(text);
            self.names.push(name_of(text)?);
        }
        Ok(())
    }

    fn set_annotation(&mut self, name: &str, value: &str) -> Result<(), String> {
        if let Some((_, advice)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(format!("{name} is not supported: {advice}"));
        }
        if let Some(annotation) = Annotation::attribute(name, value) {
            self.annotations.push(annotation.map_err(|error| error.to_string())?);
            return Ok(());
        }
        let known = ATTRIBUTES.iter().map(|(known, _)| *known);
        let near = crate::diag::nearest(name, known);
        let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        Err(format!("--output has no attribute `{name}`{near}"))
    }
}

/// Returns whether a name has a tag. Parsing adds `latest` otherwise.
pub(crate) fn has_tag(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

fn name_of(text: &str) -> Result<Reference, String> {
    text.parse::<Reference>().map_err(|error| error.to_string())
}

/// Parses the value of `mode`. Returns whether other files are removed.
fn deletes_others(value: &str) -> Result<bool, String> {
    match value {
        "copy" => Ok(false),
        "delete" => Ok(true),
        other => Err(format!("mode={other} must be copy or delete")),
    }
}

fn seconds(value: &str) -> Result<i64, String> {
    value.parse().map_err(|_bad| format!("source-date-epoch={value} is not a number of seconds"))
}

/// Parses the value of an attribute that is true or false.
pub(crate) fn boolean(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{name}={value} must be true or false")),
    }
}

/// Returns the compression of a kind and a level.
pub(crate) fn packing(compression: Option<&str>, level: Option<i32>) -> Result<Packing, String> {
    let bad = || format!("compression-level={} is out of range", level.unwrap_or(0));
    match compression.unwrap_or("gzip") {
        "gzip" => match level.map(u32::try_from) {
            None => Ok(Packing::GZIP),
            Some(Ok(level @ 0..=9)) => Ok(Packing::Gzip { level }),
            Some(_) => Err(bad()),
        },
        "zstd" => match level {
            // 0 is the default level in zstd(1), too.
            None | Some(0) => Ok(Packing::ZSTD),
            Some(level @ 1..=22) => Ok(Packing::Zstd { level }),
            Some(_) => Err(bad()),
        },
        "uncompressed" => Ok(Packing::None),
        other => Err(format!("unknown compression={other}: use gzip, zstd or uncompressed")),
    }
}

fn kind(fields: &OutputFields) -> Result<OutputKind, String> {
    let given = fields.dest.as_ref().filter(|dest| !dest.is_empty()).map(PathBuf::from);
    let dest = |what: &str| {
        let path = given.clone();
        path.ok_or_else(|| format!("--output type={what} needs dest=PATH"))
    };
    let stdout = || given.clone().unwrap_or_else(|| PathBuf::from("-"));
    let is_directory = fields.tar == Some(false);
    match fields.kind.as_deref() {
        Some("image") if fields.push => Ok(OutputKind::Registry),
        Some("image") => Ok(OutputKind::Store),
        Some("registry") => Ok(OutputKind::Registry),
        Some("cacheonly") => Ok(OutputKind::Cache),
        Some("oci") if is_directory => dest("oci,tar=false").map(OutputKind::OciDirectory),
        Some("oci") => Ok(OutputKind::OciArchive(stdout())),
        Some("docker") if is_directory => {
            Err("type=docker is a single file: use type=oci,tar=false for a directory".to_owned())
        }
        Some("docker") => Ok(given.map_or(OutputKind::Engine, OutputKind::DockerArchive)),
        Some("local") => dest("local").map(OutputKind::Directory),
        Some("tar") => Ok(OutputKind::Tar(stdout())),
        Some(other) => {
            Err(format!("unknown --output type={other}: use one of {}", TYPES.join(", ")))
        }
        None => Err("--output needs type=oci, docker, local or tar".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Output, String> {
        parse(text, &CompressionArgs::default())
    }

    #[test]
    fn outputs_are_parsed() {
        for (text, want) in [
            ("type=oci,dest=x.tar", OutputKind::OciArchive("x.tar".into())),
            ("type=oci", OutputKind::OciArchive("-".into())),
            ("type=oci,dest=x,tar=false", OutputKind::OciDirectory("x".into())),
            ("type=docker,dest=-", OutputKind::DockerArchive("-".into())),
            ("type=docker", OutputKind::Engine),
            ("out", OutputKind::Directory("out".into())),
            ("-", OutputKind::Tar("-".into())),
            ("type=tar", OutputKind::Tar("-".into())),
            ("type=registry", OutputKind::Registry),
            ("type=image,push=true", OutputKind::Registry),
            ("type=image", OutputKind::Store),
            ("type=cacheonly", OutputKind::Cache),
        ] {
            assert_eq!(read(text).unwrap().kind, want, "{text}");
        }
    }

    #[test]
    fn attributes_are_parsed() {
        let text = r#"type=image,"name=a,b:2",store=false,unpack=true,annotation-index.k=v"#;
        let output = read(text).unwrap();
        let names: Vec<String> = output.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:latest", "b:2"]);
        assert_eq!((output.stored, output.unpacked, output.has_tag), (false, true, true));
        assert_eq!(output.annotations, Annotation::parse("index:k=v").unwrap());
        let output = read("type=registry,name=a,push-by-digest=true,name-canonical=true").unwrap();
        assert_eq!((output.by_digest, output.canonical, output.has_tag), (true, true, false));
        assert_eq!(read("type=local,dest=x,platform-split=false").unwrap().split, Some(false));
        let output = read("type=local,dest=x,mode=delete,source-date-epoch=7").unwrap();
        assert_eq!((output.deletes_others, output.epoch_s), (true, Some(7)));
        assert!(read("type=registry,registry.insecure=true,oci-artifact=true").unwrap().insecure);
    }

    #[test]
    fn an_output_has_the_command_lines_compression_unless_it_has_its_own() {
        let args = CompressionArgs { kind: Some("zstd".to_owned()), level: Some(7), force: true };
        for (text, want, force) in [
            ("type=docker,dest=d", Packing::Zstd { level: 7 }, true),
            ("type=docker,dest=d,compression-level=9", Packing::Zstd { level: 9 }, true),
            ("type=docker,dest=d,compression=gzip,force-compression=false", Packing::GZIP, false),
            ("type=docker,dest=d,compression=uncompressed", Packing::None, true),
            ("type=docker,dest=d,compression-level=0", Packing::ZSTD, true),
        ] {
            let output = parse(text, &args).unwrap();
            assert_eq!((output.packing, output.force_packing), (want, force), "{text}");
        }
    }

    #[test]
    fn bad_outputs_say_what_to_type() {
        for (text, want) in [
            ("type=oci,tar=false", "--output type=oci,tar=false needs dest=PATH"),
            ("type=local", "--output type=local needs dest=PATH"),
            ("type=oci,dets=x", "--output has no attribute `dets`; did you mean `dest`?"),
            ("dest=x", "--output needs type=oci, docker, local or tar"),
            ("type=oci,dest=x,tar=maybe", "tar=maybe must be true or false"),
            (
                "type=local,dest=x,name=a",
                "name is for type=image, registry, oci, docker, not for type=local",
            ),
            ("type=local,dest=x,annotation.a=b", "type=local does not support annotations"),
            ("type=local,dest=x,mode=move", "mode=move must be copy or delete"),
            ("type=tar,mode=delete", "mode is for type=local, not for type=tar"),
            ("type=oci,source-date-epoch=x", "source-date-epoch=x is not a number of seconds"),
            ("type=image,push-by-digest=true", "push-by-digest needs push=true"),
            (
                "type=registry,name=a:1,push-by-digest=true",
                "push-by-digest needs names without a tag",
            ),
            (
                "type=image,prefer-nondist-layers=true",
                "prefer-nondist-layers=true is not supported: all layers are pushed, whatever their \
                 media type",
            ),
            (
                "type=image,compression=estargz",
                "unknown compression=estargz: use gzip, zstd or uncompressed",
            ),
        ] {
            assert_eq!(read(text), Err(want.to_owned()), "{text}");
        }
    }
}
