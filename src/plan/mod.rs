//! Stages, scopes, the reachable graph of steps, and cache keys.
