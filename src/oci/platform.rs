//! Platforms of images: operating system, architecture and variant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system, an architecture and its variant in Go's names (image-spec, image-index.md,
/// "platform"). Always normalized.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture, as in `amd64`.
    pub architecture: String,
    /// The operating system, as in `linux`.
    pub os: String,
    /// The variant, as in `v7`. `None` if the architecture has one variant, or it is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// The operating systems of images: Go's `GOOS`, which image-spec refers to
/// (<https://go.dev/doc/install/source#environment>).
const SYSTEMS: [&str; 16] = [
    "linux",
    "windows",
    "darwin",
    "freebsd",
    "aix",
    "android",
    "dragonfly",
    "illumos",
    "ios",
    "js",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "zos",
];

/// The architectures of images: Go's `GOARCH` (<https://go.dev/doc/install/source#environment>).
const ARCHITECTURES: [&str; 16] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv", "riscv64", "s390x", "sparc64", "wasm",
];

/// The reason why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// It does not have the format `os[/architecture[/variant]]`.
    #[error(
        "`{text}` is not a platform of the form os/architecture[/variant], such as linux/arm64"
    )]
    Form {
        /// The whole text that was parsed.
        text: String,
    },
    /// The operating system is unknown.
    #[error("`{name}` in the platform `{text}` is not a known operating system")]
    System {
        /// The whole text that was parsed.
        text: String,
        /// The unknown name in it.
        name: String,
    },
    /// The architecture is unknown.
    #[error("`{name}` in the platform `{text}` is not a known architecture")]
    Architecture {
        /// The whole text that was parsed.
        text: String,
        /// The unknown name in it.
        name: String,
    },
}

impl PlatformError {
    /// Returns the unknown name and the known ones.
    #[must_use]
    pub fn unknown(&self) -> Option<(&str, &'static [&'static str])> {
        match self {
            Self::Form { .. } => None,
            Self::System { name, .. } => Some((name, &SYSTEMS)),
            Self::Architecture { name, .. } => Some((name, &ARCHITECTURES)),
        }
    }
}

impl Platform {
    /// Creates a normalized platform: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`
    /// (as containerd's `platforms.Normalize`).
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

    /// Checks that operating system and architecture are known. `text` is the user's input.
    fn known(self, text: &str) -> Result<Self, PlatformError> {
        let text = text.to_owned();
        if !SYSTEMS.contains(&self.os.as_str()) {
            return Err(PlatformError::System { text, name: self.os });
        }
        if !ARCHITECTURES.contains(&self.architecture.as_str()) {
            return Err(PlatformError::Architecture { text, name: self.architecture });
        }
        Ok(self)
    }

    /// Returns the platform that this binary was compiled for.
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
        let error = || PlatformError::Form { text: text.to_owned() };
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
            [os, architecture] => Self::new(os, architecture, None).known(text),
            [os, architecture, variant] => Self::new(os, architecture, Some(variant)).known(text),
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
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError::Form { text: bad.to_owned() }));
        }
        for (bad, name) in [("linus/amd64", "linus"), ("linux/arm65/v8", "arm65")] {
            let error = bad.parse::<Platform>().unwrap_err();
            assert_eq!(error.unknown().unwrap().0, name);
        }
    }
}
