"""ONNX: one file for a stock ONNX Runtime and for one with molkv's kernel."""

from molkv_export.backends.onnx.decoder import (
    MODEL_FILE,
    check_model,
    required_operators,
    write_dense_graph,
)

__all__ = ["MODEL_FILE", "check_model", "required_operators", "write_dense_graph"]
