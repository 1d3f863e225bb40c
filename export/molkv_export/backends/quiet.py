"""Silences what the exporters' libraries say about themselves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_libraries"]

_LOGGERS = ("torch", "torchao", "executorch", "coremltools")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without notes about missing accelerators and future versions; errors still come through.

    Import the libraries inside, too: most of it is said then.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
