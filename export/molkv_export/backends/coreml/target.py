"""What the programs are compiled for."""

import coremltools

__all__ = ["OPSET"]

OPSET = coremltools.target.iOS18
"""States, multifunction models and block-wise weight compression begin with iOS 18."""
