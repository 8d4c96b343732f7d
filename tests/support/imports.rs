//! The imports between the files of the program, read from their `use` items and paths.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{self, SourceText};

/// A module's path below the crate, as in `["store", "index"]`.
pub(crate) type ModulePath = Vec<String>;

/// The imports between files. A `pub use` re-exports an item: it is followed to the file that
/// defines the item, and is not an import itself.
#[derive(Debug)]
pub(crate) struct Imports {
    modules: BTreeMap<ModulePath, Paths>,
    reexports: BTreeMap<(ModulePath, String), ModulePath>,
}

/// The paths that a file names.
#[derive(Debug, Default)]
struct Paths {
    used: Vec<String>,
    handed_on: Vec<String>,
}

impl Imports {
    /// Reads all files below `src`, without their tests.
    pub(crate) fn read() -> Self {
        let files = source::rust_below("src");
        let of_tests = |file: &&SourceText| !file.path.ends_with("/tests.rs");
        let modules = files.iter().filter(of_tests);
        let modules = modules.map(|file| (module_path(&file.path), paths_of(file))).collect();
        let mut imports = Self { modules, reexports: BTreeMap::new() };
        for (module, paths) in &imports.modules {
            for path in &paths.handed_on {
                if let Some((target, Some(item))) = imports.resolve(module, path) {
                    imports.reexports.insert((module.clone(), item), target);
                }
            }
        }
        imports
    }

    /// Returns the files that a file uses, within the same top-level module.
    fn uses(&self, module: &ModulePath) -> BTreeSet<ModulePath> {
        let paths = self.modules.get(module).into_iter().flat_map(|paths| &paths.used);
        let found = paths.filter_map(|path| {
            let (mut target, item) = self.resolve(module, path)?;
            let mut seen = BTreeSet::new();
            while let Some(next) =
                item.as_ref().and_then(|item| self.reexports.get(&(target.clone(), item.clone())))
                && seen.insert(target.clone())
            {
                target = next.clone();
            }
            Some(target)
        });
        found.filter(|target| target != module && target.first() == module.first()).collect()
    }

    /// Returns the module that a path leads to from `module`, and the item in it.
    fn resolve(&self, module: &ModulePath, path: &str) -> Option<(ModulePath, Option<String>)> {
        let mut words = path.split("::").peekable();
        let mut at = match words.peek() {
            Some(&"crate") => {
                words.next();
                Vec::new()
            }
            Some(&("self" | "super")) => module.clone(),
            Some(child) => {
                let child: ModulePath =
                    module.iter().cloned().chain([(*child).to_owned()]).collect();
                self.modules.contains_key(&child).then(|| module.clone())?
            }
            None => return None,
        };
        for word in words {
            match word {
                "self" => {}
                "super" => drop(at.pop()),
                word => {
                    at.push(word.to_owned());
                    if !self.modules.contains_key(&at) {
                        at.pop();
                        return (!at.is_empty()).then(|| (at, Some(word.to_owned())));
                    }
                }
            }
        }
        (!at.is_empty()).then_some((at, None))
    }

    /// Returns the groups of files that import each other, each as sorted paths.
    pub(crate) fn cycles(&self) -> Vec<Vec<String>> {
        let uses: BTreeMap<&ModulePath, BTreeSet<ModulePath>> =
            self.modules.keys().map(|module| (module, self.uses(module))).collect();
        let reachable = |from: &ModulePath| {
            let mut found: BTreeSet<ModulePath> = BTreeSet::new();
            let mut todo = vec![from.clone()];
            while let Some(module) = todo.pop() {
                for next in uses.get(&module).into_iter().flatten() {
                    if found.insert(next.clone()) {
                        todo.push(next.clone());
                    }
                }
            }
            found
        };
        let reachable: BTreeMap<&ModulePath, BTreeSet<ModulePath>> =
            self.modules.keys().map(|module| (module, reachable(module))).collect();
        let is_mutual = |a: &ModulePath, b: &ModulePath| {
            reachable.get(a).is_some_and(|found| found.contains(b))
                && reachable.get(b).is_some_and(|found| found.contains(a))
        };
        let groups: BTreeSet<Vec<String>> = self
            .modules
            .keys()
            .map(|module| {
                let group = self.modules.keys().filter(|other| is_mutual(module, other));
                group.map(|module| module.join("/")).collect::<Vec<_>>()
            })
            .filter(|group| group.len() > 1)
            .collect();
        groups.into_iter().collect()
    }
}

/// Returns the module of a file: `src/store/index/open.rs` is `store::index::open`.
fn module_path(path: &str) -> ModulePath {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.trim_end_matches("/mod").split('/').map(str::to_owned).collect()
}

/// Returns the paths in a file's `use` items and in its other code.
fn paths_of(file: &SourceText) -> Paths {
    let code: Vec<&str> = file.code().map(|(_, line)| line).collect();
    let mut paths = Paths::default();
    let mut lines = code.into_iter();
    while let Some(line) = lines.next() {
        let (visibility, rest) = match line.split_once("use ") {
            Some((before, rest)) if before.is_empty() || before.starts_with("pub") => {
                (before, rest)
            }
            _ => {
                paths.used.extend(paths_in_code(line));
                continue;
            }
        };
        let mut item = rest.to_owned();
        while !item.contains(';') {
            let Some(line) = lines.next() else { break };
            item.push_str(line);
        }
        let item = item.split(';').next().unwrap_or_default();
        let list = if visibility.is_empty() { &mut paths.used } else { &mut paths.handed_on };
        expand(item, list);
    }
    paths
}

/// Expands `a::{b, c::{d, e as f}}` to `a::b`, `a::c::d`, `a::c::e`.
fn expand(item: &str, to: &mut Vec<String>) {
    let item = item.trim();
    let Some((before, rest)) = item.split_once('{') else {
        let path = item.split(" as ").next().unwrap_or_default().trim();
        to.extend((!path.is_empty()).then(|| path.to_owned()));
        return;
    };
    let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
    let mut depth = 0_u32;
    for part in inside.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    }) {
        if !part.trim().is_empty() {
            expand(&format!("{before}{}", part.trim()), to);
        }
    }
}

/// Returns paths such as `crate::a::b` and `super::a::B` in a line of code.
fn paths_in_code(line: &str) -> impl Iterator<Item = String> {
    let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    words
        .filter(|word| ["crate::", "super::", "self::"].iter().any(|start| word.starts_with(start)))
        .map(|word| word.trim_end_matches(':').to_owned())
}

#[test]
fn use_items_are_expanded() {
    let mut paths = Vec::new();
    expand("super::{a::{B, c as d}, self, e}", &mut paths);
    assert_eq!(paths, ["super::a::B", "super::a::c", "super::self", "super::e"]);
}

#[test]
fn paths_in_code_are_found() {
    let found: Vec<String> =
        paths_in_code("let x: crate::a::B<super::c> = self.x(d::e);").collect();
    assert_eq!(found, ["crate::a::B", "super::c"]);
}
