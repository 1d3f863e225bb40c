"""The operators beyond torch's own that the program uses: molkv's one, and ExecuTorch's for LLMs.

`torch.export` needs their schemas; ExecuTorch lowers an operator to its ``.out`` form.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from molkv_export.expert_attention import reference_expert_attention

__all__ = ["define_out_variant", "load_language_model_operators"]

_SCHEMA = (
    "(Tensor query, Tensor keys, Tensor? key_scales, Tensor values, Tensor? value_scales, "
    "Tensor age_bias, Tensor start, *, Tensor(a!) out) -> Tensor(a!)"
)


@cache
def load_language_model_operators() -> None:
    """Register ``llama::update_cache`` and ``llama::custom_sdpa``, which the wheel ships."""
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401


@cache
def define_out_variant() -> None:
    """Register ``molkv::expert_attention.out``, which lowering puts in the op's place."""
    torch.library.define("molkv::expert_attention.out", _SCHEMA)

    @torch.library.impl("molkv::expert_attention.out", "CompositeExplicitAutograd")
    def _(
        query: Tensor,
        keys: Tensor,
        key_scales: Tensor | None,
        values: Tensor,
        value_scales: Tensor | None,
        age_bias: Tensor,
        start: Tensor,
        *,
        out: Tensor,
    ) -> Tensor:
        inputs = (query, keys, key_scales, values, value_scales, age_bias, start)
        return out.copy_(reference_expert_attention(*inputs))
