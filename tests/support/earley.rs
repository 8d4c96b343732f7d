//! Recogniser for sentences of the grammar: Earley's algorithm over characters, which follows all
//! parses at once. It shares nothing with `src/dockerfile/syntax`.
#![expect(clippy::indexing_slicing, reason = "tests panic on failure")]

use std::collections::{BTreeMap, HashMap, HashSet};

use super::ebnf::{Expr, Grammar};
use super::generate::{argument, is_keyword};

/// Matcher of a special sequence (`? … ?`) at the front of a text. Returns its maximum length in
/// bytes, `None` if it does not match, or 0 if it only looks ahead.
pub(crate) type Terminal<'a> = dyn Fn(&str, &str) -> Option<usize> + 'a;

/// A grammar converted to plain rules.
#[derive(Debug)]
pub(crate) struct Recogniser {
    rules: Vec<Vec<Vec<Symbol>>>,
    names: BTreeMap<String, usize>,
}

#[derive(Debug, Clone)]
enum Symbol {
    Rule(usize),
    Text(String),
    Keyword(String),
    Special(String),
}

/// Position in an alternative, and where its parse began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Item {
    rule: usize,
    alternative: usize,
    dot: usize,
    origin: usize,
}

/// All parses up to one position.
#[derive(Debug, Default)]
struct Place {
    items: Vec<Item>,
    known: HashSet<Item>,
    /// Items that continue once a rule was read from here, by rule.
    waiting: HashMap<usize, Vec<Item>>,
    /// Rules that matched the empty text here.
    empty: HashSet<usize>,
}

impl Place {
    fn add(&mut self, item: Item) {
        if self.known.insert(item) {
            self.items.push(item);
        }
    }
}

impl Item {
    const fn advanced(self) -> Self {
        Self { dot: self.dot + 1, ..self }
    }
}

impl Recogniser {
    /// Takes the productions of `grammar`. Those in `words` become special sequences of the same
    /// name.
    pub(crate) fn new(grammar: &Grammar, words: &[&str]) -> Self {
        let names: BTreeMap<String, usize> = grammar.productions.keys().cloned().zip(0..).collect();
        let mut this = Self { rules: vec![Vec::new(); names.len()], names };
        for (name, expr) in &grammar.productions {
            let alternatives = if words.contains(&name.as_str()) {
                vec![vec![Symbol::Special(name.clone())]]
            } else if let Expr::Choice(_, parts) = expr {
                parts.iter().map(|part| this.sequence(part)).collect()
            } else {
                vec![this.sequence(expr)]
            };
            let rule = this.names[name];
            this.rules[rule] = alternatives;
        }
        this
    }

    fn sequence(&mut self, expr: &Expr) -> Vec<Symbol> {
        if let Expr::Sequence(parts) = expr {
            parts.iter().map(|part| self.symbol(part)).collect()
        } else {
            vec![self.symbol(expr)]
        }
    }

    fn symbol(&mut self, expr: &Expr) -> Symbol {
        match expr {
            Expr::Literal(text) if is_keyword(text) => Symbol::Keyword(text.clone()),
            Expr::Literal(text) => Symbol::Text(text.clone()),
            Expr::Name(name) => Symbol::Rule(self.names[name]),
            // PATTERN stands for a rule of the grammar.
            Expr::Special(name) => match argument(name) {
                Some(("PATTERN", rule)) => Symbol::Rule(self.names[rule]),
                Some(_) | None => Symbol::Special(name.clone()),
            },
            Expr::Choice(_, parts) => {
                let alternatives = parts.iter().map(|part| self.sequence(part)).collect();
                self.rule(alternatives)
            }
            Expr::Optional(_, part) => {
                let taken = self.sequence(part);
                self.rule(vec![Vec::new(), taken])
            }
            Expr::Repeat(_, part) => {
                let once = self.sequence(part);
                let number = self.rules.len();
                let more = [vec![Symbol::Rule(number)], once].concat();
                self.rule(vec![Vec::new(), more])
            }
            Expr::Sequence(_) => {
                let parts = self.sequence(expr);
                self.rule(vec![parts])
            }
        }
    }

    fn rule(&mut self, alternatives: Vec<Vec<Symbol>>) -> Symbol {
        self.rules.push(alternatives);
        Symbol::Rule(self.rules.len() - 1)
    }

    /// Returns whether the whole of `text` matches the production `entry`.
    pub(crate) fn accepts(&self, entry: &str, text: &str, terminal: &Terminal<'_>) -> bool {
        let entry = self.names[entry];
        let mut places: Vec<Place> = Vec::new();
        places.resize_with(text.len() + 1, Place::default);
        self.predict(entry, 0, &mut places[0]);
        for at in 0..=text.len() {
            let mut next = 0;
            while let Some(item) = places[at].items.get(next).copied() {
                next += 1;
                self.step(item, at, text, terminal, &mut places);
            }
            places[at].known = HashSet::new();
        }
        places[text.len()].items.iter().any(|item| {
            item.rule == entry
                && item.origin == 0
                && item.dot == self.rules[entry][item.alternative].len()
        })
    }

    fn predict(&self, rule: usize, at: usize, place: &mut Place) {
        for alternative in 0..self.rules[rule].len() {
            place.add(Item { rule, alternative, dot: 0, origin: at });
        }
    }

    fn step(
        &self,
        item: Item,
        at: usize,
        text: &str,
        terminal: &Terminal<'_>,
        places: &mut [Place],
    ) {
        let rest = &text.as_bytes()[at..];
        let taken = match self.rules[item.rule][item.alternative].get(item.dot) {
            None => return complete(item, at, places),
            Some(Symbol::Rule(rule)) => {
                let place = &mut places[at];
                let waiting = place.waiting.entry(*rule).or_default();
                waiting.push(item);
                if waiting.len() == 1 {
                    self.predict(*rule, at, place);
                }
                if place.empty.contains(rule) {
                    place.add(item.advanced());
                }
                return;
            }
            Some(Symbol::Text(wanted)) => {
                rest.starts_with(wanted.as_bytes()).then_some(wanted.len())
            }
            Some(Symbol::Keyword(wanted)) => rest
                .get(..wanted.len())
                .filter(|found| found.eq_ignore_ascii_case(wanted.as_bytes()))
                .map(<[u8]>::len),
            Some(Symbol::Special(name)) => text.get(at..).and_then(|rest| terminal(name, rest)),
        };
        if let Some(n_bytes) = taken {
            places[at + n_bytes].add(item.advanced());
        }
    }
}

/// Advances all items that waited for this rule.
fn complete(item: Item, at: usize, places: &mut [Place]) {
    if item.origin == at {
        places[at].empty.insert(item.rule);
    }
    let waiting = places[item.origin].waiting.get(&item.rule).cloned().unwrap_or_default();
    for waiting in waiting {
        places[at].add(waiting.advanced());
    }
}
