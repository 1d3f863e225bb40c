"""The one place that imports ONNX Runtime: quietly.

Its official builds send usage data and keep a device id and a database below the user's home
folder, from the moment the library is loaded, unless this variable is set before. A value that the
user has set stays.
"""

from __future__ import annotations

import os

# Before the import: the library reads it while it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
