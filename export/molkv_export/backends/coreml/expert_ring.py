"""The expert window as a state: a ring of rows, into which a step writes its new tokens' rows.

Slot s of R holds the row of the last position that is s modulo R. So `position` alone tells every
slot's age, and a new sequence begins at position 0 without clearing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813 - MIL's own name for it
from coremltools.converters.mil.mil import types

from molkv_export.backends.coreml.expert_attention_composite import age_index
from molkv_export.backends.coreml.static_shapes import StaticShapes
from molkv_model.config import ModelConfig

__all__ = ["DecodeRing", "PrefillRing", "append", "place", "ring_states"]

Var = Any


def ring_states(config: ModelConfig, shapes: StaticShapes, layer: int) -> dict[str, Var]:
    """The states of a layer, float16 [G, R * N, size]."""
    pairs = shapes.window_rows * config.num_experts
    return {
        f"{kind}_window_{layer}": mb.StateTensorSpec(
            (config.expert_query_heads, pairs, size), dtype=types.fp16
        )
        for kind, size in (("key", shapes.key_size), ("value", shapes.value_size))
    }


def append(state: Var, name: str, rows: Var, begin: Var, end: Var) -> Var:
    """Write rows into a state in place; returns its new content."""
    before = mb.read_state(input=state, name=f"{name}_before")
    after = mb.slice_update(x=before, update=rows, begin=begin, end=end, name=f"{name}_after")
    return mb.coreml_update_state(state=state, value=after, name=f"{name}_now")


def place(middle: Var, name: str, first: int = 0, last: int = 0) -> Var:
    """An index of a rank-3 tensor whose middle is computed: int32 [3]."""
    ends = [np.array([first], np.int32), middle, np.array([last], np.int32)]
    return mb.concat(values=ends, axis=0, name=name)


class _Ring:
    """What both functions share.

    Attributes:
        index: int32 [T, rows attended], the row of the age table (`expert_attention_composite`).
    """

    index: Var

    def __init__(
        self, config: ModelConfig, shapes: StaticShapes, inputs: Mapping[str, Var]
    ) -> None:
        self.config = config
        self.rows = shapes.window_rows
        self.slots = np.arange(shapes.window_rows, dtype=np.int32)
        self.inputs = inputs

    def _back(self, end: Var, name: str, offset: int = 0) -> Var:
        """How far each slot's row lies before a position, less `offset`: 0 to R - 1.

        Dividends are kept positive: remainders of negative numbers differ from system to system.
        """
        distance = 2 * self.rows - offset - self.slots
        back = mb.add(x=end, y=distance.astype(np.int32), name=f"{name}_dividend")
        return mb.mod(x=back, y=np.int32(self.rows), name=name)


class DecodeRing(_Ring):
    """The ring of a step of one token: its row is written in place, then all slots are attended."""

    def __init__(
        self, config: ModelConfig, shapes: StaticShapes, inputs: Mapping[str, Var]
    ) -> None:
        super().__init__(config, shapes, inputs)
        position, experts = inputs["position"], np.int32(config.num_experts)
        age = mb.expand_dims(x=self._back(position, "window_age"), axes=[0], name="window_age_row")
        self.index = age_index(age, position, config.expert_window, "window_index")
        slot = mb.mod(x=position, y=np.int32(self.rows), name="window_slot")
        first = mb.mul(x=slot, y=experts, name="window_pair")
        last = mb.add(x=first, y=experts, name="window_pair_end")
        self._begin = place(first, "window_begin")
        self._end: Callable[[int], Var] = lambda size: place(
            last, f"window_end_{size}", config.expert_query_heads, size
        )

    def keep(self, state: str, rows: Var) -> Var:
        """Write a token's rows [G, N, size]; returns the rows to attend over."""
        return append(self.inputs[state], state, rows, self._begin, self._end(rows.shape[2]))


class PrefillRing(_Ring):
    """The ring of a chunk: its tokens attend over the ring as it was and over each other.

    Then the ring takes the rows of the chunk's last real tokens; padding is never kept.
    """

    def __init__(
        self, config: ModelConfig, shapes: StaticShapes, inputs: Mapping[str, Var]
    ) -> None:
        super().__init__(config, shapes, inputs)
        self.tokens = shapes.chunk
        position, last = inputs["position"], inputs["logits_index"]
        window, token = config.expert_window, np.arange(self.tokens, dtype=np.int32)
        before = self._back(position, "window_before", offset=1)
        age = mb.add(x=before, y=(token + 1)[:, None], name="window_age")
        oldest = mb.add(x=position, y=token[:, None], name="window_oldest")
        kept = age_index(age, oldest, window, "window_index_kept")
        ages = token[:, None] - token
        new = np.where((ages >= 0) & (ages < window), ages, window).astype(np.int32)
        self.index = mb.concat(values=[kept, new], axis=1, name="window_index")
        count = mb.add(x=last, y=np.int32(1), name="new_tokens")
        end = mb.add(x=position, y=count, name="window_end")
        behind = self._back(end, "window_behind", offset=1)
        newest = mb.add(x=last, y=np.int32(self.rows), name="window_newest")
        source = mb.sub(x=newest, y=behind, name="window_new_source")
        taken = mb.less(x=behind, y=count, name="window_taken")
        self._source = mb.select(cond=taken, a=source, b=self.slots, name="window_source")

    def keep(self, state: str, rows: Var) -> Var:
        """Keep the last of a chunk's rows [G, T * N, size]; returns the rows to attend over."""
        ring = mb.read_state(input=self.inputs[state], name=f"{state}_before")
        both = mb.concat(values=[ring, rows], axis=1, name=f"{state}_and_chunk")
        heads, pairs, size = ring.shape
        by_row = [heads, self.rows + self.tokens, self.config.num_experts * size]
        taken = mb.gather(
            x=mb.reshape(x=both, shape=by_row, name=f"{state}_by_row"),
            indices=self._source,
            axis=1,
            validate_indices=False,
            name=f"{state}_taken",
        )
        after = mb.reshape(x=taken, shape=[heads, pairs, size], name=f"{state}_after")
        mb.coreml_update_state(state=self.inputs[state], value=after, name=f"{state}_written")
        return both
