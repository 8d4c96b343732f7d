//! Build checks: style and correctness of a Dockerfile beyond its grammar.
