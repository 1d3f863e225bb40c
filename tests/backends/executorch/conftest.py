"""Bundles with an ExecuTorch program, as small as a test allows."""

from __future__ import annotations

import pytest

from tests.executorch_programs import (
    PROGRAMS,
    ProgramBundleOf,
    Programs,
    shared_programs,
)

__all__ = ["PROGRAMS", "ProgramBundleOf"]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return shared_programs(tmp_path_factory)


@pytest.fixture(scope="session")
def program_checkpoint_of(programs: Programs) -> ProgramBundleOf:
    """From one of PROGRAMS to its checkpoint folder."""
    return programs.checkpoint


@pytest.fixture(scope="session")
def program_bundle_of(programs: Programs) -> ProgramBundleOf:
    """From one of PROGRAMS to a bundle folder; not to be changed."""
    return programs.bundle
