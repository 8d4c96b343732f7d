//! `-o type=…,dest=…`: what is written out, and how.

use std::path::PathBuf;

use crate::archive::Packing;

use super::args::CompressionArgs;

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) kind: Kind,
    /// How new layers are packed.
    pub(super) packing: Packing,
    /// Whether base layers are packed anew, too.
    pub(super) force_packing: bool,
    /// Docker's media types instead of OCI's.
    pub(super) docker_media_types: bool,
    /// Whether file times later than SOURCE_DATE_EPOCH become it.
    pub(super) rewrite_timestamp: bool,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The local store only.
    Store,
    /// The registry of every name.
    Registry,
    /// An OCI layout in one file.
    OciArchive(PathBuf),
    /// An OCI layout.
    OciFolder(PathBuf),
    /// What `docker load` takes.
    DockerArchive(PathBuf),
    /// The image's files.
    Folder(PathBuf),
    /// The image's files in one tar; `-` is standard output.
    Tar(PathBuf),
}

/// How new layers go out of a build, each way once.
pub(super) fn packings(outputs: &[Output]) -> Vec<Packing> {
    let packs = |output: &&Output| match output.kind {
        Kind::Registry | Kind::OciArchive(_) | Kind::OciFolder(_) => true,
        Kind::Store | Kind::DockerArchive(_) | Kind::Folder(_) | Kind::Tar(_) => false,
    };
    let mut packings = Vec::new();
    for output in outputs.iter().filter(packs) {
        if !packings.contains(&output.packing) {
            packings.push(output.packing);
        }
    }
    packings
}

/// What is typed, before it makes sense.
#[derive(Debug, Default)]
struct Fields {
    kind: Option<String>,
    dest: Option<String>,
    tar: Option<bool>,
    push: bool,
    level: Option<i32>,
    compression: Option<String>,
}

/// Reads one `--output`; what it does not say of compression, `compression` does.
pub(super) fn parse(text: &str, compression: &CompressionArgs) -> Result<Output, String> {
    let mut output = Output {
        kind: Kind::Store,
        packing: packing(compression.kind.as_deref(), compression.level)?,
        force_packing: compression.force,
        docker_media_types: false,
        rewrite_timestamp: false,
    };
    if !text.contains('=') {
        let path = PathBuf::from(text);
        output.kind = if text == "-" { Kind::Tar(path) } else { Kind::Folder(path) };
        return Ok(output);
    }
    let mut fields = Fields::default();
    for field in text.split(',') {
        let (name, value) = field.split_once('=').unwrap_or((field, "true"));
        fields.set(name.trim(), value, &mut output)?;
    }
    match &fields.compression {
        // The command line's level is for its own kind.
        Some(kind) => output.packing = packing(Some(kind), fields.level)?,
        None => {
            let level = fields.level.or(compression.level);
            output.packing = packing(compression.kind.as_deref(), level)?;
        }
    }
    output.kind = kind(&fields)?;
    Ok(output)
}

impl Fields {
    fn set(&mut self, name: &str, value: &str, output: &mut Output) -> Result<(), String> {
        match name {
            "type" => self.kind = Some(value.to_owned()),
            "dest" => self.dest = Some(value.to_owned()),
            "tar" => self.tar = Some(boolean(name, value)?),
            "push" => self.push = boolean(name, value)?,
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => {
                let level = value
                    .parse()
                    .map_err(|_bad| format!("compression-level={value} is no number"))?;
                self.level = Some(level);
            }
            "force-compression" => output.force_packing = boolean(name, value)?,
            "oci-mediatypes" => output.docker_media_types = !boolean(name, value)?,
            "rewrite-timestamp" => output.rewrite_timestamp = boolean(name, value)?,
            unknown => {
                let known = [
                    "type",
                    "dest",
                    "tar",
                    "push",
                    "compression",
                    "compression-level",
                    "force-compression",
                    "oci-mediatypes",
                    "rewrite-timestamp",
                ];
                let near = crate::diag::nearest(unknown, known);
                let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                return Err(format!("--output has no `{unknown}`{near}"));
            }
        }
        Ok(())
    }
}

pub(super) fn boolean(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{name}={value} must be true or false")),
    }
}

pub(super) fn packing(compression: Option<&str>, level: Option<i32>) -> Result<Packing, String> {
    let bad = || format!("compression-level={} is out of range", level.unwrap_or(0));
    match compression.unwrap_or("gzip") {
        "gzip" => match level.map(u32::try_from) {
            None => Ok(Packing::GZIP),
            Some(Ok(level @ 0..=9)) => Ok(Packing::Gzip { level }),
            Some(_) => Err(bad()),
        },
        "zstd" => match level {
            None => Ok(Packing::ZSTD),
            Some(level @ 1..=22) => Ok(Packing::Zstd { level }),
            Some(_) => Err(bad()),
        },
        "uncompressed" => Ok(Packing::None),
        other => Err(format!("compression={other} is not known: use gzip, zstd or uncompressed")),
    }
}

fn kind(fields: &Fields) -> Result<Kind, String> {
    let dest = |what: &str| match &fields.dest {
        Some(dest) if !dest.is_empty() => Ok(PathBuf::from(dest)),
        _ => Err(format!("--output type={what} needs dest=PATH")),
    };
    match fields.kind.as_deref() {
        Some("image") if fields.push => Ok(Kind::Registry),
        Some("image" | "cacheonly") => Ok(Kind::Store),
        Some("registry") => Ok(Kind::Registry),
        Some("oci") if fields.tar == Some(false) => dest("oci").map(Kind::OciFolder),
        Some("oci") => dest("oci").map(Kind::OciArchive),
        Some("docker") => dest("docker").map(Kind::DockerArchive),
        Some("local") => dest("local").map(Kind::Folder),
        Some("tar") => dest("tar").map(Kind::Tar),
        Some(other) => {
            let known = ["oci", "docker", "local", "tar", "image", "registry", "cacheonly"];
            Err(format!("--output type={other} is not known: use one of {}", known.join(", ")))
        }
        None => Err("--output needs type=oci, docker, local or tar".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read() {
        let none = CompressionArgs::default();
        let kind = |text: &str| parse(text, &none).unwrap().kind;
        assert_eq!(kind("type=oci,dest=x.tar"), Kind::OciArchive("x.tar".into()));
        assert_eq!(kind("type=oci,dest=x,tar=false"), Kind::OciFolder("x".into()));
        assert_eq!(kind("out"), Kind::Folder("out".into()));
        assert_eq!(kind("-"), Kind::Tar("-".into()));
        assert_eq!(kind("type=registry"), Kind::Registry);
    }

    #[test]
    fn an_output_has_the_command_lines_compression_unless_it_has_its_own() {
        let args = CompressionArgs { kind: Some("zstd".to_owned()), level: Some(7), force: true };
        for (text, want, force) in [
            ("type=docker,dest=d", Packing::Zstd { level: 7 }, true),
            ("type=docker,dest=d,compression-level=9", Packing::Zstd { level: 9 }, true),
            ("type=docker,dest=d,compression=gzip,force-compression=false", Packing::GZIP, false),
            ("type=docker,dest=d,compression=uncompressed", Packing::None, true),
        ] {
            let output = parse(text, &args).unwrap();
            assert_eq!((output.packing, output.force_packing), (want, force), "{text}");
        }
    }

    #[test]
    fn bad_outputs_say_what_to_type() {
        for (text, want) in [
            ("type=oci", "--output type=oci needs dest=PATH"),
            ("type=oci,dets=x", "--output has no `dets`; did you mean `dest`?"),
            ("dest=x", "--output needs type=oci, docker, local or tar"),
            ("type=oci,dest=x,tar=maybe", "tar=maybe must be true or false"),
        ] {
            assert_eq!(parse(text, &CompressionArgs::default()), Err(want.to_owned()));
        }
    }
}
