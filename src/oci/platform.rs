//! Which machine an image is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system, an architecture and its variant, in the names of Go (image-spec,
/// image-index.md, "platform"); always in normal form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// As in `amd64`.
    pub architecture: String,
    /// As in `linux`.
    pub os: String,
    /// As in `v7`; absent where the architecture has one variant or it is the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Architectures that may stand alone in a platform (Go's `GOARCH`).
const ARCHITECTURES: [&str; 13] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64le",
    "riscv64", "s390x", "wasm",
];

/// A text that is no `os[/architecture[/variant]]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform of the form os/architecture[/variant], such as linux/arm64")]
pub struct PlatformError {
    text: String,
}

impl Platform {
    /// The platform in normal form: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
        let variant = variant.as_deref();
        let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), variant) {
            ("i386" | "i686", _) => ("386".to_owned(), None),
            ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64".to_owned(), None),
            ("x86_64" | "x86-64", other) => ("amd64".to_owned(), other),
            ("aarch64" | "arm64", Some("8" | "v8") | None) => ("arm64".to_owned(), None),
            ("aarch64", other) => ("arm64".to_owned(), other),
            ("armhf", _) | ("arm", None | Some("7" | "v7")) => ("arm".to_owned(), Some("v7")),
            ("armel", _) | ("arm", Some("6" | "v6")) => ("arm".to_owned(), Some("v6")),
            ("arm", Some("5")) => ("arm".to_owned(), Some("v5")),
            ("arm", Some("8")) => ("arm".to_owned(), Some("v8")),
            (other, variant) => (other.to_owned(), variant),
        };
        Self { architecture, os, variant: variant.map(str::to_owned) }
    }

    /// The platform that this binary was made for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "riscv64gc" => "riscv64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, None)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = || PlatformError { text: text.to_owned() };
        let good = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(good) {
            return Err(error());
        }
        match *parts.as_slice() {
            ["local"] => Ok(Self::host()),
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => {
                Ok(Self::new(os, &Self::host().architecture, None))
            }
            [architecture] => {
                let platform = Self::new("linux", architecture, None);
                let is_known = ARCHITECTURES.contains(&platform.architecture.as_str());
                if is_known { Ok(platform) } else { Err(error()) }
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_into_their_normal_form() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("Linux/AMD64", "linux/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), want);
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError { text: bad.to_owned() }));
        }
    }
}
