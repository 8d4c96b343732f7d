//! The origin of a step's record: this store's own builds, or caches of others.

use std::collections::BTreeSet;

/// The caches that a record relies on; none if builds here made the step and all below it.
///
/// Whoever can write to a cache decides what its records say. So a record counts only in builds
/// that name every cache it relies on: one that was named once must not change later builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepOrigin(BTreeSet<String>);

impl StepOrigin {
    /// The origin of a record that a cache gave.
    #[must_use]
    pub fn of_cache(place: &str) -> Self {
        Self(BTreeSet::from([place.to_owned()]))
    }

    /// Returns the caches of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// True if no cache is involved.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.0.is_empty()
    }

    /// True if each of the caches is among `named`.
    #[must_use]
    pub fn is_within(&self, named: &BTreeSet<String>) -> bool {
        self.0.is_subset(named)
    }

    /// The form in the index: a line for each cache.
    pub(super) fn to_text(&self) -> String {
        let places: Vec<&str> = self.0.iter().map(String::as_str).collect();
        places.join("\n")
    }

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
