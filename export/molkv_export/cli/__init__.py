"""The `molkv` command, one file for each of its commands."""

from molkv_export.cli.app import main

__all__ = ["main"]
