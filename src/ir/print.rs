//! The IR as a Dockerfile that parses to the same IR.
