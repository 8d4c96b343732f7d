//! Generates sentences of the grammar, the same ones for the same seed.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests panic on failure"
)]

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ebnf::{Expr, Grammar};

/// Ways to open a heredoc, and the delimiter that ends its body.
const HEREDOC_NAMES: [(&str, &str); 6] = [
    ("EOF", "EOF"),
    ("'EOF'", "EOF"),
    ("\"A B\"", "A B"),
    ("e'o'f", "eof"),
    ("$X", "$X"),
    ("\\Z", "Z"),
];

/// The weights of `grammar/weights.toml`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Weights {
    pub(crate) limits: Limits,
    pub(crate) chances: Chances,
    pub(crate) samples: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Limits {
    pub(crate) depth: usize,
    pub(crate) repeat: usize,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Chances {
    pub(crate) optional: u64,
    pub(crate) repeat: u64,
}

/// A small random number generator (splitmix64), good enough to choose alternatives.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap().max(1);
        usize::try_from(self.next() % bound).unwrap()
    }

    fn chance(&mut self, of_thousand: u64) -> bool {
        self.next() % 1000 < of_thousand
    }
}

/// How often each branch was taken: production, number of the node, branch.
pub(crate) type Hits = BTreeMap<(String, usize, String), usize>;

/// Generates sentences and counts the branches taken.
#[derive(Debug)]
pub(crate) struct Generator<'a> {
    grammar: &'a Grammar,
    weights: &'a Weights,
    random: Random,
    /// The production that is being written.
    production: String,
    depth: usize,
    escape: char,
    /// Heredocs whose bodies are still to be written: name, and whether tabs are stripped.
    open: Vec<(String, bool)>,
    text: String,
    pub(crate) hits: Hits,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(grammar: &'a Grammar, weights: &'a Weights, seed: u64) -> Self {
        Self {
            grammar,
            weights,
            random: Random(seed),
            production: String::new(),
            depth: 0,
            escape: '\\',
            open: Vec::new(),
            text: String::new(),
            hits: all_branches(grammar),
        }
    }

    /// Returns a sentence of the production `entry`.
    pub(crate) fn sentence(&mut self, entry: &str) -> String {
        self.escape = '\\';
        self.open.clear();
        self.name(entry);
        std::mem::take(&mut self.text)
    }

    fn name(&mut self, name: &str) {
        let grammar = self.grammar;
        let expr = &grammar.productions[name];
        let outer = std::mem::replace(&mut self.production, name.to_owned());
        self.depth += 1;
        self.expr(expr);
        self.depth -= 1;
        self.production = outer;
    }

    fn hit(&mut self, node: usize, branch: &str) {
        *self.hits.entry((self.production.clone(), node, branch.to_owned())).or_default() += 1;
    }

    fn expr(&mut self, expr: &Expr) {
        let deep = self.depth > self.weights.limits.depth;
        match expr {
            Expr::Sequence(parts) => parts.iter().for_each(|part| self.expr(part)),
            Expr::Choice(node, alternatives) => {
                // Recursive productions begin with an alternative that is not recursive.
                let index = if deep { 0 } else { self.random.below(alternatives.len()) };
                self.hit(*node, &index.to_string());
                self.expr(&alternatives[index]);
            }
            Expr::Optional(node, part) => {
                let taken = !deep && self.random.chance(self.weights.chances.optional);
                self.hit(*node, if taken { "taken" } else { "left out" });
                if taken {
                    self.expr(part);
                }
            }
            Expr::Repeat(node, part) => {
                let mut count = 0;
                while !deep
                    && count < self.weights.limits.repeat
                    && self.random.chance(self.weights.chances.repeat)
                {
                    self.expr(part);
                    count += 1;
                }
                self.hit(*node, if count > 0 { "taken" } else { "left out" });
            }
            Expr::Literal(text) => self.literal(text),
            Expr::Name(name) => self.name(name),
            Expr::Special(name) => self.special(name),
        }
    }

    fn literal(&mut self, text: &str) {
        if is_keyword(text) {
            let text = self.any_case(text);
            self.text.push_str(&text);
        } else {
            self.text.push_str(text);
        }
    }

    fn any_case(&mut self, word: &str) -> String {
        match self.random.below(4) {
            0 => word.to_ascii_lowercase(),
            1 => {
                let mut upper = false;
                word.chars()
                    .map(|char| {
                        upper = !upper;
                        if upper { char.to_ascii_uppercase() } else { char.to_ascii_lowercase() }
                    })
                    .collect()
            }
            _ => word.to_ascii_uppercase(),
        }
    }

    fn special(&mut self, name: &str) {
        match name {
            "ESCAPE" => self.text.push(self.escape),
            "CHOOSE_ESCAPE" => {
                self.escape = ['\\', '`'][self.random.below(2)];
                self.text.push(self.escape);
            }
            "HEREDOC_NAME" => {
                let (written, name) = HEREDOC_NAMES[self.random.below(HEREDOC_NAMES.len())];
                let dash = self.text.trim_end_matches(' ').ends_with("<<-");
                self.text.push_str(written);
                self.open.push((name.to_owned(), dash));
            }
            "LINES_UNTIL(heredoc_name)" => self.bodies(),
            "QUOTES" | "NO_NAME" | "NO_BOM" | "NOT_BLANK" | "NO_ARRAY" | "NO_DOMAIN" | "NO_ID" => {}
            _ => match argument(name) {
                Some(("ANY_CASE", word)) => {
                    let word = self.any_case(word);
                    self.text.push_str(&word);
                }
                Some(("NOT", _)) => {}
                Some(("PATTERN", _)) => self.name("pattern"),
                Some(_) | None => self.sample(name),
            },
        }
    }

    fn sample(&mut self, name: &str) {
        let weights = self.weights;
        let samples = weights.samples.get(name).unwrap_or_else(|| panic!("no samples of {name}"));
        self.text.push_str(&samples[self.random.below(samples.len())]);
    }

    fn bodies(&mut self) {
        for (name, dash) in std::mem::take(&mut self.open) {
            for _ in 0..self.random.below(4) {
                self.sample("BODY");
                self.text.push('\n');
            }
            if dash && self.random.chance(500) {
                self.text.push('\t');
            }
            self.text.push_str(&name);
            self.text.push('\n');
        }
    }
}

/// Returns the name and the argument of a special sequence such as `NOT(x)`.
pub(crate) fn argument(special: &str) -> Option<(&str, &str)> {
    special.strip_suffix(')')?.split_once('(')
}

/// Returns whether a literal stands for any mix of upper and lower case.
pub(crate) fn is_keyword(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Returns every branch of the grammar, with a count of zero.
fn all_branches(grammar: &Grammar) -> Hits {
    let mut hits = Hits::new();
    for (name, expr) in &grammar.productions {
        expr.walk(&mut |expr| {
            let (node, branches) = match expr {
                Expr::Choice(node, alternatives) => {
                    (*node, (0..alternatives.len()).map(|index| index.to_string()).collect())
                }
                Expr::Optional(node, _) | Expr::Repeat(node, _) => {
                    (*node, vec!["taken".to_owned(), "left out".to_owned()])
                }
                Expr::Sequence(_) | Expr::Literal(_) | Expr::Name(_) | Expr::Special(_) => return,
            };
            for branch in branches {
                hits.insert((name.clone(), node, branch), 0);
            }
        });
    }
    hits
}
