"""The runtime stays thin: what importing it loads, and what it weighs."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    "torch",
    "onnx",
    "safetensors",
    "ml_dtypes",
    "typer",
    "rich",
    "molkv_model",
    "molkv_export",
)
MEGABYTE = 1 << 20

MEASURE = """
import json, sys
def anonymous():
    # Bytes that are this process's own; mapped files of libraries are shared and evictable.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))
import numpy, onnxruntime
modules, before, before_anonymous = set(sys.modules), resident(), anonymous()
import molkv_runtime
print(json.dumps({
    "modules": sorted(set(sys.modules) - modules),
    "all": sorted(sys.modules),
    "resident": resident() - before,
    "anonymous": anonymous() - before_anonymous,
}))
"""


def measure() -> dict[str, object]:
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    figures: dict[str, object] = json.loads(result.stdout)
    return figures


def test_importing_the_runtime_loads_nothing_heavy_and_adds_under_60_mb() -> None:
    figures = measure()
    loaded, added = figures["all"], figures["modules"]
    assert isinstance(loaded, list)
    assert isinstance(added, list)
    top_level = {name.partition(".")[0] for name in loaded}
    assert not top_level & set(HEAVY)
    assert "molkv_runtime" in top_level
    # Import time follows the number of modules, and counting them does not depend on the machine.
    assert len(added) < 120, added
    resident, anonymous = figures["resident"], figures["anonymous"]
    assert isinstance(resident, int)
    assert isinstance(anonymous, int)
    assert 0 < resident < 60 * MEGABYTE
    assert anonymous < 30 * MEGABYTE


def test_the_commands_package_does_not_load_torch_by_being_imported() -> None:
    code = "import sys, molkv_export; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
