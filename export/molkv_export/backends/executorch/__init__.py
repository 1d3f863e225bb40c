"""ExecuTorch: one program for phones, with molkv's kernel for the expert attention.

Importing it loads torch's compiler and ExecuTorch's, which takes seconds: import it when needed.
"""

from molkv_export.backends.executorch.lowering import MODEL_FILE, write_dense_graph

__all__ = ["MODEL_FILE", "write_dense_graph"]
