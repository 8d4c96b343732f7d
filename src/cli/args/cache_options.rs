//! `--cache-from` and `--cache-to`: build caches that machines share.

use std::path::PathBuf;

use crate::cli::outputs::output;
use crate::executor::{CacheBounds, CacheFrom, CacheLocation, CacheTo};
use crate::oci::Reference;

use super::actions_options;
use super::bucket_options::{self, Variables};

/// Attributes as they were typed.
#[derive(Debug)]
struct CacheFields {
    kind: Option<String>,
    name: Option<String>,
    directory: Option<String>,
    tag: Option<String>,
    mode: Option<String>,
    compression: Option<String>,
    level: Option<i32>,
    mounts: Option<bool>,
    mounts_max: Option<u64>,
    bounds: CacheBounds,
    ignore_error: Option<bool>,
    /// Attributes that only some types have, in the order of the command line.
    others: Vec<(String, String)>,
}

/// Default of `mounts-max`: bytes of cache mounts, as tars.
const MOUNTS_MAX_BYTES: u64 = 2 << 30;

/// Values of `type` that rbuild supports.
const KINDS: [&str; 5] = ["registry", "local", "s3", "gha", "inline"];
/// Types that only BuildKit supports.
const BUILDKITS: [&str; 1] = ["azblob"];
/// Attributes that most types have.
const EVERYWHERE: [&str; 9] = [
    "type",
    "mode",
    "compression",
    "mounts",
    "mounts-max",
    "max-age",
    "max-size",
    "max-steps",
    "ignore-error",
];
/// Maximum of `max-steps`: their manifest has about three of the four mebibytes that registries accept.
const MAX_STEPS: usize = 10_000;

fn kinds() -> String {
    let [most @ .., last] = KINDS;
    format!("{} or {last}", most.join(", "))
}

/// Returns an option for messages, without the values of keys.
pub(crate) fn shown(text: &str) -> String {
    let fields = text.split(',').map(|field| match field.split_once('=') {
        Some((name, _)) if ["key", "secret", "token"].iter().any(|part| name.contains(part)) => {
            format!("{name}=****")
        }
        _ => field.to_owned(),
    });
    fields.collect::<Vec<_>>().join(",")
}

/// Parses the value of one `--cache-from`.
pub(crate) fn from(text: &str, variables: Variables<'_>, now_s: i64) -> Result<CacheFrom, String> {
    let fields = CacheFields::read(text, "src")?;
    if fields.mode.is_some() || fields.compression.is_some() || fields.level.is_some() {
        return Err("mode and compression are for --cache-to".to_owned());
    }
    let place = fields.place("src", variables)?;
    if place == CacheLocation::Inline {
        return Err("import an inline cache with type=registry,ref=IMAGE".to_owned());
    }
    let max_age_s = fields.bounds.max_age_s;
    let bounds = CacheBounds { max_age_s: CacheBounds::DEFAULT.max_age_s, ..fields.bounds };
    if fields.mounts_max.is_some() || bounds != CacheBounds::DEFAULT {
        return Err("mounts-max, max-size and max-steps are for --cache-to".to_owned());
    }
    let is_limited = max_age_s != CacheBounds::DEFAULT.max_age_s || text.contains("max-age=");
    let made_since_s = is_limited.then(|| now_s.saturating_sub(max_age_s));
    let (mounts, ignore_error) =
        (fields.mounts.unwrap_or(true), fields.ignore_error.unwrap_or(true));
    Ok(CacheFrom { place, mounts, made_since_s, ignore_error })
}

/// Parses the value of one `--cache-to`.
pub(crate) fn to(text: &str, variables: Variables<'_>) -> Result<CacheTo, String> {
    let fields = CacheFields::read(text, "dest")?;
    let all_steps = match fields.mode.as_deref() {
        None | Some("min") => false,
        Some("max") => true,
        Some(other) => return Err(format!("mode={other} must be min or max")),
    };
    let place = fields.place("dest", variables)?;
    if all_steps && place == CacheLocation::Inline {
        return Err(
            "type=inline supports mode=min only: it describes the layers of the image".to_owned()
        );
    }
    let mounts = match (fields.mounts, fields.mounts_max) {
        (None | Some(false), Some(_)) => return Err("mounts-max needs mounts=true".to_owned()),
        (None | Some(false), None) => None,
        (Some(true), max_bytes) => Some(max_bytes.unwrap_or(MOUNTS_MAX_BYTES)),
    };
    if mounts.is_some() && place == CacheLocation::Inline {
        return Err(
            "type=inline does not support mounts: the cache is in the image config".to_owned()
        );
    }
    let packing = output::packing(fields.compression.as_deref(), fields.level)?;
    let ignore_error = fields.ignore_error.unwrap_or(true);
    if place == CacheLocation::Inline && fields.bounds != CacheBounds::DEFAULT {
        return Err("type=inline does not support max-age, max-size and max-steps".to_owned());
    }
    let max_mounts_bytes = mounts.unwrap_or(fields.bounds.max_mounts_bytes);
    let bounds = CacheBounds { max_mounts_bytes, ..fields.bounds };
    Ok(CacheTo { place, all_steps, mounts, packing, bounds, ignore_error })
}

impl CacheFields {
    fn new() -> Self {
        Self {
            kind: None,
            name: None,
            directory: None,
            tag: None,
            mode: None,
            compression: None,
            level: None,
            mounts: None,
            mounts_max: None,
            bounds: CacheBounds::DEFAULT,
            ignore_error: None,
            others: Vec::new(),
        }
    }

    fn read(text: &str, directory: &'static str) -> Result<Self, String> {
        let mut fields = Self::new();
        if !text.contains('=') {
            // As in docker, a plain name is one of a registry.
            fields.kind = Some("registry".to_owned());
            fields.name = Some(text.to_owned());
            return Ok(fields);
        }
        for field in text.split(',') {
            let (name, value) = field.split_once('=').unwrap_or((field, "true"));
            fields.set(name.trim(), value, directory)?;
        }
        Ok(fields)
    }

    fn set(&mut self, name: &str, value: &str, directory: &'static str) -> Result<(), String> {
        match name {
            "type" => self.kind = Some(value.to_owned()),
            "ref" => self.name = Some(value.to_owned()),
            "tag" => self.tag = Some(value.to_owned()),
            "mode" => self.mode = Some(value.to_owned()),
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => {
                let level =
                    value.parse().map_err(|_bad| format!("{name}={value} is not a number"))?;
                self.level = Some(level);
            }
            "mounts" => self.mounts = Some(output::boolean(name, value)?),
            "mounts-max" => {
                let bytes = crate::plan::parse_binary_size(value);
                let bytes =
                    bytes.ok_or_else(|| format!("{name}={value} is not a size such as 2g"))?;
                self.mounts_max = Some(bytes);
            }
            "max-age" => {
                let age = humantime::parse_duration(value).ok();
                let age = age.and_then(|age| i64::try_from(age.as_secs()).ok());
                self.bounds.max_age_s =
                    age.ok_or_else(|| format!("{name}={value} is not a time such as 30d"))?;
            }
            "max-size" => {
                let bytes = crate::plan::parse_binary_size(value);
                self.bounds.max_bytes =
                    bytes.ok_or_else(|| format!("{name}={value} is not a size such as 20g"))?;
            }
            "max-steps" => {
                let number = value.parse().ok().filter(|number| *number <= MAX_STEPS);
                self.bounds.max_steps = number
                    .ok_or_else(|| format!("{name}={value} is not a number up to {MAX_STEPS}"))?;
            }
            "ignore-error" => self.ignore_error = Some(output::boolean(name, value)?),
            // rbuild always does this; BuildKit only on request.
            "oci-mediatypes" | "image-manifest" if output::boolean(name, value)? => {}
            name if name == directory => self.directory = Some(value.to_owned()),
            other => self.others.push((other.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    /// Refuses attributes of other types, which would be ignored.
    fn refuse_unsupported(&self, directory: &str) -> Result<(), String> {
        let kind = self.kind.as_deref().unwrap_or_default();
        let packed = self.compression.is_some() || self.level.is_some();
        for (given, of, name) in [
            (self.name.is_some(), &["registry"][..], "ref"),
            (self.directory.is_some(), &["local"], directory),
            (self.tag.is_some(), &["local"], "tag"),
            (packed, &["registry", "local", "s3", "gha"], "compression"),
        ] {
            if given && !kind.is_empty() && !of.contains(&kind) {
                return Err(format!("type={kind} does not support {name}"));
            }
        }
        // A missing type is reported by the caller.
        let is_of = |of: &str, name: &str| match of {
            "s3" => bucket_options::NAMES.contains(&name),
            "gha" => actions_options::NAMES.contains(&name),
            _ => false,
        };
        let is_of_any = |name: &str| is_of("s3", name) || is_of("gha", name);
        let is_known =
            |name: &str| if kind.is_empty() { is_of_any(name) } else { is_of(kind, name) };
        let Some((unknown, _)) = self.others.iter().find(|(name, _)| !is_known(name)) else {
            return Ok(());
        };
        if is_of_any(unknown) {
            return Err(format!("type={kind} does not support {unknown}"));
        }
        let own = ["ref", directory, "tag"];
        let own = match kind {
            "s3" => &bucket_options::NAMES[..],
            "gha" => &actions_options::NAMES,
            _ => &own,
        };
        let known = own.iter().copied().chain(EVERYWHERE);
        let near = crate::diag::nearest(unknown, known);
        let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        // The value is not shown: it may be a key.
        Err(format!("unknown attribute `{unknown}`{near}"))
    }

    fn place(&self, directory: &str, variables: Variables<'_>) -> Result<CacheLocation, String> {
        let some = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if let Some(other) = self.kind.as_deref().filter(|kind| !KINDS.contains(kind)) {
            let why = if BUILDKITS.contains(&other) { "not supported" } else { "unknown" };
            return Err(format!("type={other} is {why}: use {}", kinds()));
        }
        self.refuse_unsupported(directory)?;
        match self.kind.as_deref() {
            Some("registry") => {
                let name = some(&self.name).ok_or("type=registry needs ref=NAME:TAG")?;
                let name: Reference = name
                    .parse()
                    .map_err(|error: crate::oci::ReferenceError| format!("ref={name}: {error}"))?;
                Ok(CacheLocation::Registry(name))
            }
            Some("local") => {
                let path = some(&self.directory)
                    .ok_or(format!("type=local needs {directory}=DIRECTORY"))?;
                let tag = some(&self.tag).unwrap_or_else(|| "latest".to_owned());
                Ok(CacheLocation::Directory(PathBuf::from(path), tag))
            }
            Some("s3") => {
                let cache = bucket_options::cache(&self.others, variables)?;
                Ok(CacheLocation::Bucket(Box::new(cache)))
            }
            Some("gha") => {
                let cache = actions_options::cache(&self.others, variables)?;
                Ok(CacheLocation::Actions(Box::new(cache)))
            }
            Some(_) => Ok(CacheLocation::Inline),
            None => Err(format!("a cache needs type={}", kinds())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Packing;

    fn from(text: &str) -> Result<CacheFrom, String> {
        super::from(text, &|_name| None, 1_000_000)
    }

    fn to(text: &str) -> Result<CacheTo, String> {
        super::to(text, &|_name| None)
    }

    #[test]
    fn caches_are_parsed() {
        let registry = |name: &str| CacheLocation::Registry(name.parse().unwrap());
        assert_eq!(from("a.example/c").unwrap().place, registry("a.example/c:latest"));
        let cache = from("type=registry,ref=a.example/c:1,ignore-error=false").unwrap();
        let place = registry("a.example/c:1");
        let made_since_s = None;
        assert_eq!(cache, CacheFrom { place, mounts: true, made_since_s, ignore_error: false });
        let aged = from("type=registry,ref=a.example/c,max-age=1d").unwrap();
        assert_eq!(aged.made_since_s, Some(1_000_000 - 86_400));
        assert!(!from("type=local,src=c,mounts=false").unwrap().mounts);
        let cache = to("type=local,dest=/c,mode=max,compression=zstd,tag=main").unwrap();
        let place = CacheLocation::Directory("/c".into(), "main".to_owned());
        let packing = Packing::ZSTD;
        let (all_steps, ignore_error, mounts) = (true, true, None);
        let bounds = CacheBounds::DEFAULT;
        assert_eq!(cache, CacheTo { place, all_steps, mounts, packing, bounds, ignore_error });
        let bounds = to("type=local,dest=c,max-age=2d,max-size=1g,max-steps=7").unwrap().bounds;
        let want = CacheBounds {
            max_age_s: 172_800,
            max_steps: 7,
            max_bytes: 1 << 30,
            ..CacheBounds::DEFAULT
        };
        assert_eq!(bounds, want);
        for (text, want) in [
            ("mounts=true", Some(MOUNTS_MAX_BYTES)),
            ("mounts,mounts-max=1.5g", Some(3 << 29)),
            ("mounts=false", None),
        ] {
            assert_eq!(to(&format!("type=local,dest=c,{text}")).unwrap().mounts, want, "{text}");
        }
        assert_eq!(to("type=inline").unwrap().place, CacheLocation::Inline);
    }

    #[test]
    fn invalid_caches_are_refused_with_a_hint() {
        for (text, want) in [
            ("type=registry", "type=registry needs ref=NAME:TAG"),
            ("type=local,src=x", "unknown attribute `src`"),
            (
                "type=azblob,name=x",
                "type=azblob is not supported: use registry, local, s3, gha or inline",
            ),
            (
                "type=local2,dest=x",
                "type=local2 is unknown: use registry, local, s3, gha or inline",
            ),
            ("mode=max", "a cache needs type=registry, local, s3, gha or inline"),
            ("type=gha,bucket=b", "type=gha does not support bucket"),
            ("type=s3,scope=x", "type=s3 does not support scope"),
            ("type=gha,scoep=x", "unknown attribute `scoep`; did you mean `scope`?"),
            ("type=gha,version=1", "version=1 is not supported: GitHub has version 2 only"),
            ("type=local,dest=x,bucket=b", "type=local does not support bucket"),
            ("type=s3,dest=x", "type=s3 does not support dest"),
            (
                "type=s3,secret_acces_key=x",
                "unknown attribute `secret_acces_key`; did you mean `secret_access_key`?",
            ),
            ("type=s3,region=r", "type=s3 needs bucket=NAME (or AWS_BUCKET)"),
            ("bucket=b,region=r", "a cache needs type=registry, local, s3, gha or inline"),
            ("type=local,dest=x,mode=all", "mode=all must be min or max"),
            ("type=local,dets=x", "unknown attribute `dets`; did you mean `dest`?"),
            ("type=inline,compression=zstd", "type=inline does not support compression"),
            ("type=local,dest=x,mounts-max=1g", "mounts-max needs mounts=true"),
            ("type=local,dest=x,mounts,mounts-max=big", "mounts-max=big is not a size such as 2g"),
            (
                "type=inline,mounts",
                "type=inline does not support mounts: the cache is in the image config",
            ),
            ("type=local,dest=x,max-age=old", "max-age=old is not a time such as 30d"),
            ("type=local,dest=x,max-size=big", "max-size=big is not a size such as 20g"),
            ("type=local,dest=x,max-steps=-1", "max-steps=-1 is not a number up to 10000"),
            ("type=local,dest=x,max-steps=10001", "max-steps=10001 is not a number up to 10000"),
            (
                "type=inline,max-age=1d",
                "type=inline does not support max-age, max-size and max-steps",
            ),
            ("type=registry,ref=a,tag=b", "type=registry does not support tag"),
            ("type=local,dest=a,ref=b", "type=local does not support ref"),
            (
                "type=inline,mode=max",
                "type=inline supports mode=min only: it describes the layers of the image",
            ),
        ] {
            assert_eq!(to(text), Err(want.to_owned()));
        }
        let text =
            "type=s3,secret_access_key=x,access_key_id=y,session_token=z,secret_acess=w,bucket=b";
        let want = "type=s3,secret_access_key=****,access_key_id=****,session_token=****,secret_acess=****,bucket=b";
        assert_eq!(shown(text), want);
        let inline = Err("import an inline cache with type=registry,ref=IMAGE".to_owned());
        assert_eq!(from("type=inline"), inline);
    }
}
