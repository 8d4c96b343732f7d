//! Warnings for options of a build that no instruction uses.

use crate::cli::args::build::BuildArgs;
use crate::diag::nearest;
use crate::dockerfile::ir;
use crate::dockerfile::lint::{self, InputNames};
use crate::dockerfile::scope;
use crate::plan;

use super::secrets;

/// Secrets that authorize downloads of ADD and of contexts. They need no mount.
const FOR_DOWNLOADS: [&str; 4] =
    ["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER", "HTTP_AUTH_TOKEN_", "HTTP_AUTH_HEADER_"];

/// A kind of option.
struct OptionKind<'a> {
    flag: &'a str,
    known: &'a InputNames,
    /// The sentence after "is unused"; `{}` stands for the name.
    why: &'a str,
}

/// Returns a warning for each unused option.
pub(crate) fn warnings(args: &BuildArgs, dockerfile: &ir::Dockerfile) -> Vec<String> {
    let named = lint::named_inputs(dockerfile);
    let arguments = args.build_arg.iter().map(|arg| before(arg, "="));
    let arguments = arguments.filter(|name| !scope::is_predefined(name));
    let ids: Vec<String> = args.secret.iter().filter_map(|text| secrets::secret_id(text)).collect();
    let ids = ids.iter().map(String::as_str);
    let ids = ids.filter(|id| !FOR_DOWNLOADS.iter().any(|start| id.starts_with(start)));
    let agents: Vec<&str> = args.ssh.iter().map(|text| secrets::agent_id(text)).collect();
    let agents = agents.into_iter().filter(|_| !may_fetch_by_ssh(args));
    let contexts = args.build_context.iter().map(|text| before(before(text, "="), "::"));
    let argument = OptionKind {
        flag: "--build-arg",
        known: &named.arguments,
        why: "the Dockerfile has no ARG {}",
    };
    let secret = OptionKind {
        flag: "--secret",
        known: &named.secrets,
        why: "no RUN of the Dockerfile mounts it",
    };
    let agent = OptionKind {
        flag: "--ssh",
        known: &named.agents,
        why: "no RUN of the Dockerfile mounts it",
    };
    let names = named.contexts.words.iter().map(|word| compared(word)).collect();
    let context = OptionKind {
        flag: "--build-context",
        known: &InputNames { words: names, is_open: named.contexts.is_open },
        why: "no FROM or --from of the Dockerfile names it",
    };
    let stages = args.no_cache_filter.iter().map(|name| name.to_ascii_lowercase());
    let stage = OptionKind {
        flag: "--no-cache-filter",
        known: &named.stages,
        why: "the Dockerfile has no stage {}",
    };
    let mut found: Vec<String> = arguments.filter_map(|name| argument.warning(name)).collect();
    found.extend(ids.filter_map(|id| secret.warning(id)));
    found.extend(agents.filter_map(|id| agent.warning(id)));
    found.extend(contexts.filter_map(|name| context.warning(&compared(name))));
    found.extend(stages.filter_map(|name| stage.warning(&name)));
    found.extend(args.docker.security_opt.iter().map(|option| {
        format!("--security-opt {option} is unused: only RUN --security=insecure changes a step's rights")
    }));
    found
}

impl OptionKind<'_> {
    fn warning(&self, name: &str) -> Option<String> {
        let Self { flag, known, why } = self;
        if known.is_open || known.words.iter().any(|word| word == name) {
            return None;
        }
        let near = nearest(name, known.words.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        let why = why.replace("{}", name);
        Some(format!("{flag} {name} is unused: {why}{near}"))
    }
}

fn before<'a>(text: &'a str, separator: &str) -> &'a str {
    text.split_once(separator).map_or(text, |(before, _)| before)
}

/// Returns the normalized name of a context, a stage or an image.
fn compared(name: &str) -> String {
    plan::context_name(&name.to_ascii_lowercase()).unwrap_or_else(|| name.to_owned())
}

/// Returns whether a context may be a repository behind ssh.
fn may_fetch_by_ssh(args: &BuildArgs) -> bool {
    let context = args.shown_context();
    let named = args.build_context.iter().map(String::as_str);
    named.chain([&*context]).any(|text| text.contains('@') || text.contains("ssh://"))
}
