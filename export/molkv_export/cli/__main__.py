"""``python -m molkv_export.cli``: the `molkv` command for launchers that start modules."""

from molkv_export.cli.app import main

main()
