"""The models are so small that a second thread only costs."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
