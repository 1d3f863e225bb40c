"""Core ML: one ``.mlpackage`` with two functions, prefill and decode, that keep their state."""

import logging

# It warns on import about every version that it was not tested with, and that this is no Mac.
logging.getLogger("coremltools").setLevel(logging.ERROR)
