"""The weights that a program stores, as tensors of the checkpoint."""

from __future__ import annotations

from torch import Tensor, nn
from torchao.utils import TorchAOBaseTensor

from molkv_export.backends.executorch.quantization import quantize
from molkv_export.backends.executorch.step import DecoderStep
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.manifest import DensePrecision

__all__ = ["stored_tensors"]


def stored_tensors(checkpoint: Checkpoint, dense: DensePrecision) -> dict[str, Tensor]:
    """Every quantized matrix by its checkpoint name, in float32.

    Quantization needs no data and no chance, so these are the program's. A tied head is quantized
    apart from the embedding, and is there under the name that it would have untied.

    Args:
        checkpoint: the trained model.
        dense: precision of the dense weights.
    """
    step = DecoderStep.from_checkpoint(checkpoint, "f16")
    quantize(step, dense)
    tensors = {}
    for name, module in step.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding) and isinstance(
            module.weight, TorchAOBaseTensor
        ):
            stored = "lm_head" if name == "head" else name.replace("backbone.", "model.", 1)
            tensors[f"{stored}.weight"] = module.weight.dequantize().detach()
    return tensors
