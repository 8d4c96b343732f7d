//! Expands the options of `RUN --mount` and applies their defaults
//! (<https://docs.docker.com/reference/dockerfile/#run---mount>).

use crate::diag::{Diagnostic, Span, Spanned, codes};
use crate::dockerfile::ir::{self, MountType, Sharing, Word};
use crate::dockerfile::scope::StageScope;

use super::stage_state::join_clean;
use super::{CopyFrom, MountAccess, RunMount, RunMountKind};

/// Directory of secrets whose mount has no target.
const SECRETS_DIRECTORY: &str = "/run/secrets";
/// Path of agent sockets whose mount has no target; the number of the agent follows.
const AGENT_PREFIX: &str = "/run/buildkit/ssh_agent.";

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// State of the stage that the options of a mount depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct MountScope<'a> {
    pub(super) variables: &'a StageScope,
    /// Directory of relative targets.
    pub(super) workdir: &'a str,
    /// True if the working directory depends on an unknown image.
    pub(super) workdir_is_unknown: bool,
    /// Value of `BUILDKIT_CACHE_MOUNT_NS`, a prefix of every cache id.
    pub(super) cache_namespace: Option<&'a str>,
}

/// Expands the mounts of one RUN, parents first; the last of several mounts with one target counts.
///
/// `froms` has the source that each `from=` resolves to.
pub(super) fn expand(
    mounts: &[Spanned<ir::Mount>],
    froms: Vec<Option<CopyFrom>>,
    scope: MountScope<'_>,
) -> Result<Vec<RunMount>> {
    let mut expanded: Vec<RunMount> = Vec::new();
    let mut n_agents = 0;
    for (mount, from) in mounts.iter().zip(froms) {
        let mount =
            MountOptions { span: mount.span, mount: &mount.value, scope }.mount(from, n_agents)?;
        n_agents += usize::from(matches!(mount.kind, RunMountKind::Ssh { .. }));
        let seen = |known: &RunMount| !known.target.is_empty() && known.target == mount.target;
        expanded.retain(|known| !seen(known));
        expanded.push(mount);
    }
    // The path of a directory is a prefix of the paths below it, so it sorts first.
    expanded.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(expanded)
}

/// One mount with the state that it depends on.
struct MountOptions<'a> {
    span: Span,
    mount: &'a ir::Mount,
    scope: MountScope<'a>,
}

impl MountOptions<'_> {
    fn mount(&self, from: Option<CopyFrom>, n_agents: usize) -> Result<RunMount> {
        let kind = self.kind()?;
        let read_only = self.mount.read_only.map(|flag| flag.value);
        let (kind, target, read_only) = match kind {
            MountType::Bind => {
                let from = from.unwrap_or(CopyFrom::Context);
                let kind = RunMountKind::Bind { from, source: self.source()? };
                (kind, self.target()?, read_only.unwrap_or(true))
            }
            MountType::Cache => (self.cache(from)?, self.target()?, read_only.unwrap_or(false)),
            MountType::Tmpfs => {
                let bytes = self.mount.size.as_ref().map(|word| self.size(word)).transpose()?;
                let kind = RunMountKind::Tmpfs { bytes: bytes.unwrap_or(0) };
                (kind, self.target()?, read_only.unwrap_or(false))
            }
            MountType::Secret => self.secret()?,
            MountType::Ssh => {
                let id = self.non_blank(&self.mount.id)?.unwrap_or_else(|| "default".to_owned());
                let target = self.non_blank(&self.mount.target)?;
                let target = target.unwrap_or_else(|| format!("{AGENT_PREFIX}{n_agents}"));
                let kind = RunMountKind::Ssh {
                    id,
                    required: self.required(),
                    access: self.access(0o600)?,
                };
                (kind, self.absolute(&target)?, false)
            }
        };
        Ok(RunMount { span: self.span, kind, target, read_only })
    }

    /// Returns the type. If it has a variable, the parser could not check the keys, so they are checked
    /// here.
    fn kind(&self) -> Result<MountType> {
        let Some(word) = &self.mount.kind_variable else { return Ok(self.mount.kind) };
        let name = self.expand(word)?;
        let kind = MountType::from_name(&name).ok_or_else(|| {
            let known = MountType::ALL.map(MountType::name).join(", ");
            self.error(word.span, format!("unsupported mount type `{name}`"))
                .help(format!("expected one of {known}"))
        })?;
        use MountType::{Bind, Cache, Secret, Ssh, Tmpfs};
        let mount = self.mount;
        let given = |word: &Option<Word>| word.as_ref().map(|word| word.span);
        let keys: [(&str, Option<Span>, &[MountType]); 8] = [
            ("mode", given(&mount.mode), &[Cache, Secret, Ssh]),
            ("uid", given(&mount.uid), &[Cache, Secret, Ssh]),
            ("gid", given(&mount.gid), &[Cache, Secret, Ssh]),
            ("sharing", mount.sharing.map(|sharing| sharing.span), &[Cache]),
            ("size", given(&mount.size), &[Tmpfs]),
            ("env", given(&mount.env), &[Secret]),
            ("required", mount.required.map(|flag| flag.span), &[Secret, Ssh]),
            ("from", given(&mount.from), &[Bind, Cache, Tmpfs, Ssh]),
        ];
        for (key, span, kinds) in keys {
            if let Some(span) = span.filter(|_| !kinds.contains(&kind)) {
                let message = format!("unexpected key `{key}` for mount type `{}`", kind.name());
                return Err(Box::new(self.error(span, message)));
            }
        }
        Ok(kind)
    }

    fn cache(&self, from: Option<CopyFrom>) -> Result<RunMountKind> {
        let id = match self.non_blank(&self.mount.id)? {
            Some(id) => id,
            // BuildKit cleans the target but does not join it to the working directory.
            None => clean(&self.required_target()?),
        };
        let id = match self.scope.cache_namespace {
            Some(namespace) => format!("{namespace}/{id}"),
            None => id,
        };
        let sharing = self.mount.sharing.map_or(Sharing::Shared, |sharing| sharing.value);
        let (source, access) = (self.source()?, self.access(0o755)?);
        Ok(RunMountKind::Cache { id, sharing, from, source, access })
    }

    fn secret(&self) -> Result<(RunMountKind, String, bool)> {
        let target = self.non_blank(&self.mount.target)?;
        let id = match (self.non_blank(&self.mount.source)?, self.non_blank(&self.mount.id)?) {
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => {
                let name = target.as_deref().and_then(|target| target.rsplit('/').next());
                name.filter(|name| !name.is_empty()).map(str::to_owned).ok_or_else(|| {
                    let message = "a secret mount needs `id` or `target`";
                    self.error(self.span, message).help("add `id=name`")
                })?
            }
        };
        let env = self.non_blank(&self.mount.env)?;
        let target = match target {
            Some(target) => self.absolute(&target)?,
            None if env.is_some() => String::new(),
            None => {
                let name = id.rsplit('/').next().unwrap_or(&id);
                format!("{SECRETS_DIRECTORY}/{name}")
            }
        };
        let (required, access) = (self.required(), self.access(0o400)?);
        Ok((RunMountKind::Secret { id, env, required, access }, target, true))
    }

    fn required(&self) -> bool {
        self.mount.required.is_some_and(|required| required.value)
    }

    fn access(&self, mode: u32) -> Result<MountAccess> {
        let mode = match &self.mount.mode {
            Some(word) => self.number(word, 8, "an octal mode such as `0755`")?,
            None => mode,
        };
        let id = |word: &Option<Word>| word.as_ref().map_or(Ok(0), |word| self.id(word));
        Ok(MountAccess {
            mode: mode & 0o7777,
            uid: id(&self.mount.uid)?,
            gid: id(&self.mount.gid)?,
        })
    }

    fn number(&self, word: &Word, radix: u32, expected: &str) -> Result<u32> {
        let text = self.expand(word)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = u32::from_str_radix(&text, radix).ok().filter(|_| digits);
        number.ok_or_else(|| self.bad_number(word, &text, expected))
    }

    /// Parses a uid or gid. `u32::MAX` means "unchanged" to chown(2), so it is not an id.
    fn id(&self, word: &Word) -> Result<u32> {
        let expected = "a number below 4294967295";
        let id = self.number(word, 10, expected)?;
        if id == u32::MAX {
            return Err(self.bad_number(word, &id.to_string(), expected));
        }
        Ok(id)
    }

    fn bad_number(&self, word: &Word, text: &str, expected: &str) -> Box<Diagnostic> {
        let message = format!("invalid value `{text}` in `--mount`");
        Box::new(self.error(word.span, message).help(format!("expected {expected}")))
    }

    fn size(&self, word: &Word) -> Result<u64> {
        let text = self.expand(word)?;
        parse_binary_size(&text).ok_or_else(|| {
            let message = format!("invalid value `{text}` for `size`");
            Box::new(self.error(word.span, message).help("expected a size such as `64m`"))
        })
    }

    /// Returns the source as an absolute, clean path.
    fn source(&self) -> Result<String> {
        Ok(join_clean("/", &self.non_blank(&self.mount.source)?.unwrap_or_default()))
    }

    /// Returns the target as an absolute, clean path.
    fn target(&self) -> Result<String> {
        self.absolute(&self.required_target()?)
    }

    fn required_target(&self) -> Result<String> {
        self.non_blank(&self.mount.target)?.ok_or_else(|| {
            let message = "the target of a mount is empty after its variables were expanded";
            Box::new(self.error(self.span, message).help("add `target=/path`"))
        })
    }

    fn absolute(&self, target: &str) -> Result<String> {
        if self.scope.workdir_is_unknown && !target.starts_with('/') {
            self.scope.variables.note_unknown_read();
        }
        let path = join_clean(self.scope.workdir, target);
        if path == "/" {
            let span = self.mount.target.as_ref().map_or(self.span, |word| word.span);
            let message = format!("the target of a mount cannot be `/`: `{target}` resolves to it");
            return Err(Box::new(self.error(span, message)));
        }
        Ok(path)
    }

    /// Expands an option; `None` if it is missing or empty.
    fn non_blank(&self, word: &Option<Word>) -> Result<Option<String>> {
        let expanded = word.as_ref().map(|word| self.expand(word)).transpose()?;
        Ok(expanded.filter(|value| !value.is_empty()))
    }

    fn expand(&self, word: &Word) -> Result<String> {
        Ok(self.scope.variables.expand(word)?)
    }

    fn error(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(codes::BAD_MOUNT, span, message.into()).label(span, "in this mount")
    }
}

/// Cleans a path as Go's `path.Clean` does: a relative path stays relative
/// (<https://pkg.go.dev/path#Clean>).
fn clean(path: &str) -> String {
    let clean = join_clean("/", path);
    if path.starts_with('/') { clean } else { clean.trim_start_matches('/').to_owned() }
}

/// Maximum number of decimal places of a size; further digits are worth less than a byte.
const MAX_FRACTION_DIGITS: usize = 16;

/// Parses a size such as `64m` or `1.5GiB` into bytes; every unit is a power of 1024, as in
/// `docker run --shm-size`.
#[must_use]
pub fn parse_binary_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at_checked(digits)?;
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let factor = 1_u128 << shift;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.get(..fraction.len().min(MAX_FRACTION_DIGITS))?;
    let mut scale = 1_u128;
    let mut total = whole.parse::<u64>().ok().map(u128::from)?;
    for digit in fraction.chars() {
        scale *= 10;
        total = total * 10 + u128::from(digit.to_digit(10)?);
    }
    let total = total.checked_mul(factor)? / scale;
    u64::try_from(total).ok()
}

#[cfg(test)]
mod tests {
    use crate::oci::Platform;
    use crate::plan::Request;

    use super::*;

    /// Returns the mounts of the RUN in the last line, one a line, or the messages of errors.
    fn expanded(lines: &str) -> String {
        let request = Request {
            contexts: Default::default(),
            build_args: [("BUILDKIT_CACHE_MOUNT_NS".to_owned(), "ns".to_owned())].into(),
            target: None,
            platforms: vec![Platform::host()],
            platform_given: false,
            build_platform: Platform::host(),
            labels: Vec::new(),
            changes: Default::default(),
            first_base: None,
            network: crate::plan::Network::Host,
            allow_host_network: false,
            allow_insecure: false,
            uncached: crate::plan::Uncached::None,
            run: crate::plan::RunSettings::default(),
        };
        let text = format!("FROM scratch AS one\nFROM scratch\nWORKDIR /w\n{lines}\n");
        let (file, diagnostics) = crate::dockerfile::syntax::parse(&text);
        assert_eq!(diagnostics, []);
        let images = crate::plan::Images::new();
        let plan = match crate::plan::plan(&file, &request, &images) {
            Ok(crate::plan::Outcome::Ready(plan)) => plan,
            Ok(crate::plan::Outcome::Needs(needs)) => return format!("{} needed", needs.len()),
            Err(errors) => return errors.into_iter().map(|error| error.message).collect(),
        };
        let steps = plan.stages.last().map(|stage| stage.steps.as_slice()).unwrap_or_default();
        let Some(crate::plan::Operation::Run(run)) =
            steps.last().and_then(|step| step.operation.as_ref())
        else {
            panic!("the last line must be a RUN");
        };
        let shown = run.mounts.iter().map(|mount| {
            let access = if mount.read_only { "ro" } else { "rw" };
            format!("{} {access} {:?}\n", mount.target, mount.kind)
        });
        shown.collect::<String>().trim_end().replace("MountAccess ", "")
    }

    #[test]
    fn mounts_are_expanded_with_the_defaults_of_their_type() {
        for (run, want) in [
            ("target=/t", "/t ro Bind { from: Context, source: \"/\" }"),
            ("target=t/../u/,source=./a/../b,rw", "/w/u rw Bind { from: Context, source: \"/b\" }"),
            ("from=one,target=/t,ro=false", "/t rw Bind { from: Stage(0), source: \"/\" }"),
            ("from=0,target=/t", "/t ro Bind { from: Stage(0), source: \"/\" }"),
            ("type=tmpfs,target=/t,size=1k", "/t rw Tmpfs { bytes: 1024 }"),
            (
                "type=cache,target=c/../d",
                "/w/d rw Cache { id: \"ns/d\", sharing: Shared, from: None, source: \"/\", \
                 access: { mode: 493, uid: 0, gid: 0 } }",
            ),
            (
                "type=cache,target=/c,id=i,sharing=locked,from=one,source=s,mode=0700,uid=1,gid=2,ro",
                "/c ro Cache { id: \"ns/i\", sharing: Locked, from: Some(Stage(0)), source: \"/s\", \
                 access: { mode: 448, uid: 1, gid: 2 } }",
            ),
            (
                "type=secret,id=a/b",
                "/run/secrets/b ro Secret { id: \"a/b\", env: None, required: false, \
                 access: { mode: 256, uid: 0, gid: 0 } }",
            ),
            (
                "type=secret,target=x/y,required",
                "/w/x/y ro Secret { id: \"y\", env: None, required: true, \
                 access: { mode: 256, uid: 0, gid: 0 } }",
            ),
            (
                "type=secret,id=a,env=B",
                " ro Secret { id: \"a\", env: Some(\"B\"), required: false, \
                 access: { mode: 256, uid: 0, gid: 0 } }",
            ),
            (
                "type=ssh",
                "/run/buildkit/ssh_agent.0 rw Ssh { id: \"default\", required: false, \
                 access: { mode: 384, uid: 0, gid: 0 } }",
            ),
        ] {
            assert_eq!(expanded(&format!("RUN --mount={run} true")), want, "{run}");
        }
    }

    #[test]
    fn variables_are_expanded_in_all_values() {
        let args = "ARG T=tmpfs K=1k D=/d N=7 M=0750 W=x\n";
        for (run, want) in [
            ("type=$T,target=$D/$W,size=$K", "/d/x rw Tmpfs { bytes: 1024 }"),
            (
                "type=secret,id=$W,uid=$N,gid=${N}1,mode=$M",
                "/run/secrets/x ro Secret { id: \"x\", env: None, required: false, \
                 access: { mode: 488, uid: 7, gid: 71 } }",
            ),
            ("type=$W,target=/t", "unsupported mount type `x`"),
            ("type=$T,target=/t,uid=1", "unexpected key `uid` for mount type `tmpfs`"),
            ("type=cache,target=/t,mode=$W", "invalid value `x` in `--mount`"),
            ("type=tmpfs,target=/t,size=$W", "invalid value `x` for `size`"),
            ("target=$NONE", "the target of a mount is empty after its variables were expanded"),
            ("target=/$NONE", "the target of a mount cannot be `/`: `/` resolves to it"),
            ("target=..", "the target of a mount cannot be `/`: `..` resolves to it"),
            ("from=later,target=/t", "1 needed"),
        ] {
            assert_eq!(expanded(&format!("{args}RUN --mount={run} true")), want, "{run}");
        }
    }

    #[test]
    fn parents_come_first_and_the_last_mount_of_a_target_counts() {
        let run = "RUN --mount=type=tmpfs,target=/a/b --mount=type=tmpfs,target=/a \
                   --mount=type=tmpfs,target=/a/b/,size=1k --mount=type=tmpfs,target=/a-b \
                   --mount=type=secret,id=s,env=S --mount=type=secret,id=t,env=T true";
        let targets: Vec<String> = expanded(run)
            .lines()
            .map(|line| line.split_once(" r").map_or(line, |(target, _)| target).to_owned())
            .collect();
        assert_eq!(targets, ["", "", "/a", "/a-b", "/a/b"]);
        assert!(expanded(run).ends_with("/a/b rw Tmpfs { bytes: 1024 }"));
    }

    #[test]
    fn bytes_are_powers_of_1024() {
        for (text, want) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("64m", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("10KB", Some(10 << 10)),
            ("1 GiB", Some(1 << 30)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("99999999p", None),
        ] {
            assert_eq!(parse_binary_size(text), want, "{text}");
        }
    }
}
