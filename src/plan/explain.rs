//! Explains a cache miss: compares the key of a step with that of the most similar earlier step.

use super::Component;

/// Name of the component for the base image, which is not part of the key.
pub const BASE: &str = "base image";
/// Name of the component for the definition chain of the layers below, which is not part of the key.
pub const BELOW: &str = "layers below";

/// The first component that differs between the keys of two steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the component, as in `environment variable CC`.
    pub name: String,
    /// Value in the earlier step, if it has this component.
    pub old: Option<String>,
    /// Value in the new step, if it has this component.
    pub new: Option<String>,
}

/// Finds the step among `earlier` ones, latest first, of which `new` is most likely a later version.
///
/// A candidate has the same layers below, or does the same with other inputs. The candidate with the
/// most equal components wins.
#[must_use]
pub fn closest_step<'a>(
    earlier: impl IntoIterator<Item = &'a [Component]>,
    new: &[Component],
) -> Option<usize> {
    let rank = |old: &[Component]| {
        let same_place = component_value(old, BELOW) == component_value(new, BELOW);
        let is_later = same_place && is_edited_version(old, new);
        let is_like = kind(old) == kind(new) && (is_later || has_same_instruction(old, new));
        is_like.then(|| (same_place, new.iter().filter(|part| old.contains(part)).count()))
    };
    let ranked = earlier.into_iter().enumerate().filter_map(|(at, old)| Some((rank(old)?, at)));
    // Among equals, the latest wins.
    ranked.max_by_key(|(rank, at)| (*rank, std::cmp::Reverse(*at))).map(|(_, at)| at)
}

/// Returns the first component in which two steps differ, in the order of the new one. [`BASE`] and
/// [`BELOW`] are not compared.
#[must_use]
pub fn first_difference(old: &[Component], new: &[Component]) -> Option<Difference> {
    let own = |part: &&Component| part.name != BASE && part.name != BELOW;
    let mut left: Vec<&Component> = old.iter().filter(own).collect();
    for part in new.iter().filter(own) {
        if let Some(at) = left.iter().position(|old| *old == part) {
            left.remove(at);
            continue;
        }
        let old = left.iter().find(|old| old.name == part.name);
        let name = part.name.clone();
        let old = old.map(|old| old.value.clone());
        return Some(Difference { name, old, new: Some(part.value.clone()) });
    }
    let removed = left.first()?;
    Some(Difference { name: removed.name.clone(), old: Some(removed.value.clone()), new: None })
}

/// Returns the value of a component.
#[must_use]
pub fn component_value<'a>(parts: &'a [Component], name: &str) -> Option<&'a str> {
    parts.iter().find(|part| part.name == name).map(|part| part.value.as_str())
}

/// Returns the name of the first component, which differs between RUN, COPY and WORKDIR.
fn kind(parts: &[Component]) -> Option<&str> {
    parts.first().map(|part| part.name.as_str())
}

/// Returns whether `new` may be an edited `old`: a COPY keeps a source or its destination, a command
/// half of its text at its ends.
fn is_edited_version(old: &[Component], new: &[Component]) -> bool {
    let text_of = |parts: &[Component]| -> Vec<Component> {
        parts.iter().filter(|part| is_instruction_text(part)).cloned().collect()
    };
    let (old, new) = (text_of(old), text_of(new));
    let command = |parts: &[Component]| {
        let mut arguments = parts.iter().filter(|part| part.name.starts_with("argument "));
        arguments.next_back().map(|part| part.value.clone())
    };
    match (command(&old), command(&new)) {
        (Some(old), Some(new)) => is_edited(&old, &new),
        (None, None) => old.is_empty() || old.iter().any(|part| new.contains(part)),
        _ => false,
    }
}

fn is_edited(old: &str, new: &str) -> bool {
    let common =
        |pairs: &mut dyn Iterator<Item = (u8, u8)>| pairs.take_while(|(a, b)| a == b).count();
    let start = common(&mut old.bytes().zip(new.bytes()));
    let end = common(&mut old.bytes().rev().zip(new.bytes().rev()));
    (start + end) * 2 >= old.len().min(new.len())
}

/// Returns whether the texts of the instructions are equal.
fn has_same_instruction(old: &[Component], new: &[Component]) -> bool {
    let is_text = |part: &&Component| is_instruction_text(part);
    old.iter().filter(is_text).eq(new.iter().filter(is_text))
}

/// Returns whether a component comes from the text of the instruction, and not from its inputs.
#[must_use]
pub fn is_instruction_text(part: &Component) -> bool {
    let name = part.name.as_str();
    ["argument ", "source ", "heredoc ", "download ", "repository "]
        .iter()
        .any(|start| name.starts_with(start))
        || name == "destination"
        || name == "path"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<Component> {
        let pairs = text.split(", ").filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| Component { name: name.into(), value: value.into() }).collect()
    }

    fn difference(old: &str, new: &str) -> Option<(String, Option<String>, Option<String>)> {
        let found = first_difference(&parts(old), &parts(new))?;
        Some((found.name, found.old, found.new))
    }

    #[test]
    fn first_difference_has_the_component_and_both_values() {
        let of = |name: &str, old: Option<&str>, new: Option<&str>| {
            Some((name.to_owned(), old.map(str::to_owned), new.map(str::to_owned)))
        };
        for (old, new, want) in [
            ("argument 0=a, user=x", "argument 0=a, user=x", None),
            (
                "argument 0=a, user=x",
                "argument 0=b, user=y",
                of("argument 0", Some("a"), Some("b")),
            ),
            ("argument 0=a", "argument 0=a, --link=true", of("--link", None, Some("true"))),
            ("argument 0=a, --link=true", "argument 0=a", of("--link", Some("true"), None)),
            ("a=1, --exclude=x, --exclude=y", "a=1, --exclude=y, --exclude=x", None),
            ("a=1, layers below=x", "a=1, layers below=y", None),
        ] {
            assert_eq!(difference(old, new), want, "{old} → {new}");
        }
    }

    #[test]
    fn closest_step_has_the_same_layers_below_or_does_the_same() {
        let new = parts("argument 0=make, env A=2, layers below=x");
        for (earlier, want) in [
            (&[][..], None),
            (&["argument 0=other, layers below=y"], None),
            (&["path=/x, layers below=x"], None),
            (&["argument 0=other, layers below=x"], None),
            (&["argument 0=makes, layers below=x"], Some(0)),
            (&["argument 0=make, env A=1, layers below=y"], Some(0)),
            (
                &[
                    "argument 0=make, env A=1, layers below=y",
                    "argument 0=make, env A=2, layers below=y",
                ],
                Some(1),
            ),
            (&["argument 0=make, layers below=y", "argument 0=make, layers below=z"], Some(0)),
            (
                &["argument 0=make, env A=2, layers below=y", "argument 0=maker, layers below=x"],
                Some(1),
            ),
        ] {
            let earlier: Vec<_> = earlier.iter().map(|text| parts(text)).collect();
            let all = earlier.iter().map(Vec::as_slice);
            assert_eq!(closest_step(all, &new), want, "{earlier:?}");
        }
    }
}
