//! Words, quotes and variables against a given environment.
