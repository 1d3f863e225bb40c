"""The installed `molkv` command, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# A terminal's width, if the tests run in one, is not the width of a pipe.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
MOLKV = str(Path(sys.executable).parent / "molkv")


def molkv(
    *arguments: object,
    code: int = 0,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it, check the exit code and that no traceback is shown; output is captured."""
    result = subprocess.run(
        [MOLKV, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        check=False,
        cwd=cwd,
        env=ENVIRONMENT | (environment or {}),
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result
