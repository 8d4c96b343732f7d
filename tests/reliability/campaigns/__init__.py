"""The campaigns, one `CAMPAIGN` in each module."""

import importlib

NAMES = ("kills", "damage", "syscalls", "processes", "disks", "transfers", "limits")


def load():
    """Returns the campaigns by name, in the order in which they run."""
    return {name: importlib.import_module(f"campaigns.{name}").CAMPAIGN for name in NAMES}
