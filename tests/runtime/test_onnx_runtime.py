"""ONNX Runtime is loaded quietly: nothing of a user's home folder is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import BundleOf

VERIFY = """
import sys
from molkv_export.verify import verify
from molkv_runtime.bundle import Bundle
assert verify(Bundle.open(sys.argv[1])).passed
"""
GENERATE = """
import sys
from molkv_runtime import Bundle, Session
with Session(Bundle.open(sys.argv[1])) as session:
    assert len(list(session.generate([1, 2, 3], max_new_tokens=4))) == 4
"""


@pytest.mark.parametrize("program", [VERIFY, GENERATE], ids=["verify", "generate"])
def test_the_home_folder_stays_empty(bundle_of: BundleOf, tmp_path: Path, program: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # This process may have set the variable for itself.
    ours = ("ORT_DISABLE_TELEMETRY", "HOME")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("XDG_")
    }
    subprocess.run(
        [sys.executable, "-c", program, str(bundle_of("molkv", "int8"))],
        env={**environment, "HOME": str(home), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    assert list(home.iterdir()) == []


def test_a_value_that_the_user_set_stays() -> None:
    printed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, molkv_runtime.onnx_runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])",
        ],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == "true\n"
