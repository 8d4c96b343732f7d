"""Shared parts of the hostile suite; see ../README.md."""
