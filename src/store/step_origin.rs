//! Origin of a step's record: builds in this store, or caches that it was imported from.

use std::collections::BTreeSet;

/// The caches that a record relies on; empty if builds in this store ran the step and all steps below
/// it.
///
/// Anyone with write access to a cache decides what its records say. A record therefore counts only in
/// builds that name every cache it relies on: a cache that was named once must not change later builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepOrigin(BTreeSet<String>);

impl StepOrigin {
    /// Returns the origin of a record that was imported from the cache `place`.
    #[must_use]
    pub fn of_cache(place: &str) -> Self {
        Self(BTreeSet::from([place.to_owned()]))
    }

    /// Returns the union of both sets of caches.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// Returns whether the record relies on the cache `place`.
    #[must_use]
    pub fn names(&self, place: &str) -> bool {
        self.0.contains(place)
    }

    /// Returns whether the record relies on no cache.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether every cache is in `named`.
    #[must_use]
    pub fn is_within(&self, named: &BTreeSet<String>) -> bool {
        self.0.is_subset(named)
    }

    /// Returns the text that the index stores: one line for each cache.
    pub(super) fn to_text(&self) -> String {
        let places: Vec<&str> = self.0.iter().map(String::as_str).collect();
        places.join("\n")
    }

    /// Parses a text of [`StepOrigin::to_text`].
    pub(super) fn from_text(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_only_where_all_their_caches_are_named() {
        let (a, b) = (StepOrigin::of_cache("a"), StepOrigin::of_cache("b"));
        let both = a.and(&b);
        assert_eq!(StepOrigin::from_text(&both.to_text()), both);
        assert_eq!(StepOrigin::from_text(&StepOrigin::default().to_text()), StepOrigin::default());
        let named = |places: &[&str]| places.iter().map(|place| (*place).to_owned()).collect();
        for (origin, places, want) in [
            (&StepOrigin::default(), vec![], true),
            (&a, vec![], false),
            (&a, vec!["a"], true),
            (&a, vec!["b"], false),
            (&both, vec!["a"], false),
            (&both, vec!["a", "b", "c"], true),
        ] {
            assert_eq!(origin.is_within(&named(&places)), want, "{origin:?} {places:?}");
        }
    }
}
