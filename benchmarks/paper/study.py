"""What is compared: scales, models, and the tables that a question puts them into."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.paper.costs import activated_parameters, bytes_per_token, multiply_adds
from molkv_model.config import ModelConfig, preset
from molkv_model.training_config import Precision

__all__ = ["MAIN", "ROWS", "SCALES", "TABLES", "Row", "Run", "Scale", "Table", "widened"]


@dataclass(frozen=True)
class Scale:
    """Backbone, data and schedule that all models of a table share.

    Attributes:
        name: in the names of rows.
        backbone: a dense model; the others add experts to it.
        tokens: to train on; no training token is read twice where the corpus is large enough.
        batch_tokens: of a step, over all ranks.
        sequence_length: in tokens.
        learning_rate: the schedule's peak.
        warmup_steps: until the peak.
        evaluations: validation losses on the way, the last included.
        validation_sequences: scored each time.
        precision: of the matrix products.
        once: whether no token is read twice.
        seeds: of a full comparison.
    """

    name: str
    backbone: ModelConfig
    tokens: int
    batch_tokens: int
    sequence_length: int
    learning_rate: float
    warmup_steps: int
    evaluations: int
    validation_sequences: int
    precision: Precision = "float32"
    once: bool = True
    seeds: tuple[int, ...] = (0, 1, 2)

    def molkv(self, **changes: Any) -> ModelConfig:
        """MoLKV with the numbers of the preset ``tiny`` scaled to this width, W 16, and changes."""
        width = self.backbone.hidden_size
        numbers: dict[str, Any] = {
            "architecture": "molkv",
            "num_experts": 4,
            "expert_intermediate_size": 2 * width,
            "expert_key_size": width // 8,
            "expert_query_heads": 4,
            "expert_window": 16,
        }
        return dataclasses.replace(self.backbone, **{**numbers, **changes})

    def mole(self) -> ModelConfig:
        """MoLE that stores as many values a token as `molkv` does.

        Its shared network is wider by as much as MoLKV's query, norms and age bias weigh, so that
        both activate the same number of parameters.
        """
        molkv = self.molkv()
        values = molkv.num_experts * (
            molkv.hidden_size + molkv.expert_query_heads * molkv.expert_key_size
        )
        mole = dataclasses.replace(molkv.as_mole(), num_experts=values // molkv.hidden_size)
        return widened(mole, activated_parameters(molkv), activated_parameters)

    def molkv_of_moles_bytes(self) -> ModelConfig:
        """MoLKV with the largest keys whose row has no more bytes than MoLE's.

        Its shared network is wider by as much as the queries are narrower.
        """
        most, of_full_keys = bytes_per_token(self.mole()), self.molkv()
        sizes = range(of_full_keys.expert_key_size, 0, -1)
        found = (self.molkv(expert_key_size=size) for size in sizes)
        molkv = next(config for config in found if bytes_per_token(config) <= most)
        return widened(molkv, activated_parameters(of_full_keys), activated_parameters)

    def dense(self) -> ModelConfig:
        """No experts, and as many activated parameters as `molkv`."""
        return widened(self.backbone, activated_parameters(self.molkv()), activated_parameters)


def widened(config: ModelConfig, goal: int, count: Callable[[ModelConfig], int]) -> ModelConfig:
    """The config with the shared network's width that brings `count` closest to `goal`."""
    layers = config.num_hidden_layers
    of_one = 3 * config.hidden_size * layers
    more = round((goal - count(config)) / of_one)
    return dataclasses.replace(config, intermediate_size=config.intermediate_size + more)


@dataclass(frozen=True)
class Row:
    """A model that is trained, with one or several seeds.

    Attributes:
        name: unique, for the command line.
        title: as tables print it.
        scale: what it shares with the others.
        model: its hyper-parameters.
        seeds: one run each.
    """

    name: str
    title: str
    scale: Scale
    model: ModelConfig
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """A row with one seed."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and result."""
        return f"{self.row.name}-seed{self.seed}"


@dataclass(frozen=True)
class Table:
    """Rows that answer one question.

    Attributes:
        name: for the command line.
        question: the heading.
        rows: names of rows.
    """

    name: str
    question: str
    rows: tuple[str, ...]


_MINI = ModelConfig(
    vocab_size=2048,
    hidden_size=64,
    intermediate_size=172,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=256,
).without_experts()

SCALES: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale("early", _MINI, 500_000, 1024, 256, 4e-3, 50, 5, 128, seeds=(0, 1, 2, 3, 4)),
        Scale("mini", _MINI, 2_000_000, 1024, 256, 4e-3, 100, 8, 256, seeds=(0, 1, 2, 3, 4)),
        Scale("tiny", ModelConfig().without_experts(), 8_000_000, 2048, 256, 3e-3, 100, 16, 256),
        Scale(
            "small",
            preset("small").without_experts(),
            26_214_400,
            32_768,
            512,
            1e-3,
            100,
            16,
            256,
            precision="bfloat16",
            once=False,
        ),
    )
}
"""``early`` is for a CPU core; the others were trained on a GPU."""


def _main(scale: Scale) -> Iterator[Row]:
    models = {
        "dense": ("dense", scale.dense()),
        "mole": ("MoLE", scale.mole()),
        "molkv": ("MoLKV", scale.molkv()),
        "molkv-bytes": ("MoLKV, no more bytes a token", scale.molkv_of_moles_bytes()),
        "shift2": (
            "MoLKV, shifted keys in half of the heads",
            scale.molkv(expert_shifted_heads=2),
        ),
    }
    for name, (title, model) in models.items():
        yield Row(f"{scale.name}-{name}", title, scale, model, scale.seeds)


_FOLLOWED_UP = ("current", "window1")
"""Ablations trained with all seeds: the former start of the age bias, and no past."""


def _ablations(scale: Scale) -> Iterator[Row]:
    size = scale.molkv().expert_key_size
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "shift4": ("MoLKV, shifted keys in all heads", {"expert_shifted_heads": 4}),
        "window1": ("MoLKV, W 1", {"expert_window": 1}),
        "window8": ("MoLKV, W 8", {"expert_window": 8}),
        "window64": ("MoLKV, W 64", {"expert_window": 64}),
        "window256": ("MoLKV, W 256", {"expert_window": 256}),
        "level": ("MoLKV, age bias starts at 0", {"expert_age_start": "level"}),
        "current": (
            "MoLKV, age bias starts with the current token alone",
            {"expert_age_start": "current"},
        ),
        "no-age": ("MoLKV, no age bias", {"expert_scoring": "key"}),
        "heads1": (
            f"MoLKV, one head, dk {4 * size}",
            {"expert_query_heads": 1, "expert_key_size": 4 * size},
        ),
        "heads8": (
            f"MoLKV, eight heads, dk {size // 2}",
            {"expert_query_heads": 8, "expert_key_size": size // 2},
        ),
        "experts1": ("MoLKV, N 1", {"num_experts": 1}),
        "experts8": ("MoLKV, N 8", {"num_experts": 8}),
        "keys-half": (f"MoLKV, dk {size // 2}", {"expert_key_size": size // 2}),
        "keys-double": (f"MoLKV, dk {2 * size}", {"expert_key_size": 2 * size}),
        "keys-4-fold": (f"MoLKV, dk {4 * size}", {"expert_key_size": 4 * size}),
        "keys-16-fold": (f"MoLKV, dk {16 * size}", {"expert_key_size": 16 * size}),
        "null": ("MoLKV, with a null expert", {"expert_null": True}),
        "embedding-keys": ("MoLKV, keys from the embedding", {"expert_key_source": "embedding"}),
        "plain-keys": ("MoLKV, keys and queries not normalised", {"expert_key_norm": False}),
        "sigmoid": ("MoLKV, sigmoid gates", {"expert_scoring": "sigmoid"}),
        "silu": ("MoLKV, SiLU gates", {"expert_scoring": "silu"}),
        "past": ("MoLE mix plus a gated past", {"expert_scoring": "router_and_past"}),
    }
    for name, (title, change) in changes.items():
        seeds = scale.seeds if name in _FOLLOWED_UP else (0,)
        yield Row(f"{scale.name}-{name}", title, scale, scale.molkv(**change), seeds)
    equal_compute = widened(scale.mole(), multiply_adds(scale.molkv()), multiply_adds)
    yield Row(
        f"{scale.name}-mole-compute",
        "MoLE with as many multiply-adds",
        scale,
        equal_compute,
        scale.seeds,
    )


ROWS: Mapping[str, Row] = {
    row.name: row for scale in SCALES.values() for row in (*_main(scale), *_ablations(scale))
}


def _tables(scale: Scale) -> Iterator[Table]:
    questions = {
        "main": (
            "MoLKV against MoLE and dense",
            ("mole", "dense", "mole-compute", "molkv", "molkv-bytes", "shift2"),
        ),
        "scoring": (
            "How pairs are weighed",
            ("molkv", "null", "past", "sigmoid", "silu"),
        ),
        "age": (
            "The age bias and its start",
            ("molkv", "current", "level", "no-age"),
        ),
        "keys": (
            "Keys",
            (
                "molkv",
                "shift2",
                "shift4",
                "plain-keys",
                "embedding-keys",
                "keys-half",
                "keys-double",
                "keys-4-fold",
                "keys-16-fold",
            ),
        ),
        "numbers": (
            "Heads and experts",
            ("molkv", "heads1", "heads8", "experts1", "experts8"),
        ),
        "window": (
            "The window",
            ("molkv", "window1", "window8", "window64", "window256"),
        ),
    }
    for name, (question, rows) in questions.items():
        yield Table(f"{scale.name}-{name}", question, tuple(f"{scale.name}-{row}" for row in rows))


TABLES: Mapping[str, Table] = {
    table.name: table for scale in SCALES.values() for table in _tables(scale)
}

MAIN = TABLES["early-main"].rows
"""What ``make paper`` trains."""
