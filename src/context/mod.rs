//! Lists and hashes a build context under its ignore file; never leaves its root.
