//! What tests share: fixtures and the programs that they need.
