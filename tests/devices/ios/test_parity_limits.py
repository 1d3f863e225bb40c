"""The limits of the Swift ladder are those of the exporter's ladders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from molkv_export import rounded_ladder
from molkv_export.backends.coreml import parity
from tests.devices.ios.conftest import DEMO

if TYPE_CHECKING:
    from collections.abc import Iterable

    from molkv_export.rungs import PrecisionLimits

LADDER = DEMO / "Sources" / "MolkvKit" / "ParityLadder.swift"
ROUNDED = [limits for kinds in rounded_ladder.LIMITS.values() for limits in kinds.values()]


@pytest.mark.parametrize(
    ("name", "limits"),
    [("float16Factor", parity.LIMITS.values()), ("roundedFactor", ROUNDED)],
    ids=["float16", "rounded"],
)
def test_rungs_have_the_tolerance_of_the_exporters_ladder(
    name: str, limits: Iterable[PrecisionLimits]
) -> None:
    source = LADDER.read_text(encoding="utf-8")
    (factor,) = re.findall(rf"^  static let {name} = ([\d.]+)$", source, re.MULTILINE)
    assert {limit.tolerance_factor for limit in limits} == {float(factor)}
