"""The rows: each module is a class of attacks; see ../README.md."""
