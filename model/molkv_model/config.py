"""The model's hyper-parameters: one frozen, validated record for dense, MoLE and MoLKV."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from molkv_model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PRESETS",
    "STUDIED",
    "AgeStart",
    "Architecture",
    "FeedForwardKind",
    "KeySource",
    "ModelConfig",
    "Scoring",
    "preset",
]

Architecture = Literal["dense", "mole", "molkv"]
Scoring = Literal["key_age", "key", "sigmoid", "silu", "router_and_past"]
AgeStart = Literal["current", "level", "fading"]
KeySource = Literal["hidden", "embedding"]
FeedForwardKind = Literal["swiglu", "gelu"]

MODEL_TYPE = "molkv"


@dataclass(frozen=True)
class ModelConfig:
    """Hyper-parameters, named as Hugging Face names them where it has a name.

    The expert fields are zero for ``dense``. ``mole`` (arXiv 2503.15798) uses `num_experts` and
    `expert_intermediate_size` only. ``molkv`` (arXiv 2512.09723) uses all of them; docs/model.md
    has the equations.

    Attributes:
        architecture: ``dense`` (no experts), ``mole`` (router scores) or ``molkv`` (key-value
            experts over a window of past tokens).
        vocab_size: token ids, and rows of the expert table.
        hidden_size: d, the width of the residual stream.
        intermediate_size: hidden width of the shared feed-forward network.
        num_hidden_layers: L.
        num_attention_heads: query heads of self-attention.
        num_key_value_heads: key-value heads of self-attention (grouped-query attention).
        max_position_embeddings: the context, in tokens.
        rope_theta: base of the rotary embedding's frequencies.
        rms_norm_eps: epsilon of every RMSNorm.
        tie_word_embeddings: whether the head is the embedding's transpose.
        feed_forward: ``swiglu``, or ``gelu`` (two layers without a gate, as published MoLE has).
        num_experts: N, experts a token and layer.
        expert_intermediate_size: hidden width of each expert before it becomes a table.
        expert_key_size: dk, the size of a key for one query head.
        expert_query_heads: G; each head mixes its own slice of the value (d / G wide).
        expert_window: W, how many of the last tokens' experts a query attends over.
        expert_scoring: ``key_age`` adds a learned bias for each head, expert and age;
            ``key`` scores with query and key alone. The study's others: ``sigmoid`` and ``silu``
            gate each pair alone instead of the softmax, ``router_and_past`` mixes the current
            token's experts by a router and adds a gated softmax over the past ones.
        expert_age_start: the age bias before training: ``fading`` favours the recent ages,
            ``current`` age 0 by ln 4W, ``level`` none. The scorings ``sigmoid`` and ``silu`` start
            with all past ages alike.
        expert_key_norm: whether keys and queries are normalised.
        expert_key_source: what keys are projected from: the expert's ``hidden`` units or the
            normalised ``embedding``.
        expert_null: whether the softmax has one more candidate, of value zero.
        expert_shifted_heads: in the first so many heads a token's values have the keys of the
            token before it.

    Raises:
        ConfigError: a field is out of range or two fields contradict each other.
    """

    architecture: Architecture = "molkv"
    vocab_size: int = 4096
    hidden_size: int = 128
    intermediate_size: int = 344
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    feed_forward: FeedForwardKind = "swiglu"
    num_experts: int = 4
    expert_intermediate_size: int = 256
    expert_key_size: int = 16
    expert_query_heads: int = 4
    expert_window: int = 64
    expert_scoring: Scoring = "key_age"
    expert_age_start: AgeStart = "fading"
    expert_key_norm: bool = True
    expert_key_source: KeySource = "hidden"
    expert_null: bool = False
    expert_shifted_heads: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        self._check_backbone()
        self._check_experts()

    @property
    def head_dim(self) -> int:
        """Size of one self-attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def has_keys(self) -> bool:
        """Whether experts carry keys, that is, whether this is MoLKV."""
        return self.architecture == "molkv"

    @property
    def has_experts(self) -> bool:
        """Whether there is an expert table at all."""
        return self.architecture != "dense"

    @property
    def studied(self) -> dict[str, Any]:
        """What makes this a variant of the study (docs/paper.md), which no export knows; by name.

        Empty for the model proper, wherever its age bias started: that is a matter of training
        alone.
        """
        changed = {name: value for name, value in self.to_bundle().items() if name in STUDIED}
        if self.expert_scoring not in ("key_age", "key"):
            changed["expert_scoring"] = self.expert_scoring
        return changed

    def without_experts(self) -> ModelConfig:
        """The dense baseline of the same activated size."""
        return dataclasses.replace(
            self, architecture="dense", expert_scoring="key_age", **_NO_EXPERTS, **STUDIED
        )

    def as_mole(self) -> ModelConfig:
        """The MoLE baseline with the same experts but router scores instead of keys."""
        return dataclasses.replace(
            self,
            architecture="mole",
            expert_scoring="key_age",
            expert_key_size=0,
            expert_query_heads=1,
            expert_window=1,
            **STUDIED,
        )

    def to_json(self) -> dict[str, Any]:
        """The content of ``config.json``; the study's fields only where they differ."""
        fields = dataclasses.asdict(self)
        plain = [name for name, proper in STUDIED.items() if fields[name] == proper]
        return {"model_type": MODEL_TYPE, **{n: v for n, v in fields.items() if n not in plain}}

    def to_bundle(self) -> dict[str, Any]:
        """What a bundle says of the model: `to_json` without what training alone knows."""
        fields = self.to_json()
        fields.pop("expert_age_start", None)
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], *, source: str = "config.json") -> ModelConfig:
        """Read the content of ``config.json``, strictly.

        Args:
            fields: the parsed JSON object.
            source: the file's name, for messages.

        Raises:
            ConfigError: another model type, or an unknown, missing or invalid field.
        """
        if fields.get("model_type") != MODEL_TYPE:
            raise ConfigError(
                f"{source}: model_type is {fields.get('model_type')!r}, expected {MODEL_TYPE!r}",
                fix="published MoLE has model_type llama and num_experts",
            )
        given = {name: value for name, value in fields.items() if name != "model_type"}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ConfigError(f"{source}: unknown field {', '.join(unknown)}", fix="remove it")
        if missing := sorted(known - set(given) - set(STUDIED)):
            raise ConfigError(f"{source}: missing field {', '.join(missing)}", fix="add it")
        try:
            return cls(**given)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error.problem}", fix=error.fix) from None

    def _check_backbone(self) -> None:
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix="it must be positive")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"at most {most}")
        self._check_multiple("hidden_size", "num_attention_heads")
        self._check_multiple("num_attention_heads", "num_key_value_heads")
        if self.head_dim % 2:
            raise ConfigError(
                f"hidden_size {self.hidden_size} over num_attention_heads "
                f"{self.num_attention_heads} is {self.head_dim}",
                fix="rotary embedding needs an even head size",
            )
        if self.max_position_embeddings * self.head_dim > _MOST_ROTARY:
            raise ConfigError(
                f"max_position_embeddings {self.max_position_embeddings} times the head size "
                f"{self.head_dim} exceeds {_MOST_ROTARY}",
                fix="choose a shorter context or more num_attention_heads",
            )

    def _check_experts(self) -> None:
        expected: dict[str, int | None] = dict.fromkeys(_NO_EXPERTS)
        if self.architecture == "dense":
            expected = dict(_NO_EXPERTS)
        elif self.architecture == "mole":
            expected |= {"expert_key_size": 0, "expert_query_heads": 1, "expert_window": 1}
        for name, value in expected.items():
            given = getattr(self, name)
            if value is None and given <= 0:
                raise ConfigError(
                    f"{name} is {given}", fix=f"{self.architecture} needs it positive"
                )
            if value is not None and given != value:
                raise ConfigError(
                    f"{name} is {given}, but architecture is {self.architecture}",
                    fix=f"{self.architecture} needs {name} {value}",
                )
        if self.has_experts:
            self._check_multiple("hidden_size", "expert_query_heads")
        self._check_studied()

    def _check_studied(self) -> None:
        if not 0 <= self.expert_shifted_heads <= self.expert_query_heads:
            raise ConfigError(
                f"expert_shifted_heads is {self.expert_shifted_heads}",
                fix=f"0 to expert_query_heads {self.expert_query_heads}",
            )
        has_softmax = self.expert_scoring in ("key_age", "key")
        for name, proper in STUDIED.items():
            if getattr(self, name) != proper and not self.has_keys:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}, but architecture is {self.architecture}",
                    fix="only molkv has keys",
                )
        scores_alone = ("key",) if self.expert_age_start == "level" else ("key", "sigmoid", "silu")
        default = STUDIED["expert_age_start"]
        if self.expert_age_start != default and self.expert_scoring in scores_alone:
            raise ConfigError(
                f"expert_age_start is {self.expert_age_start!r}, but expert_scoring is "
                f"{self.expert_scoring}, which has no such start",
                fix=f"leave expert_age_start at {default!r}",
            )
        if self.expert_null and not has_softmax:
            raise ConfigError(
                f"expert_null is on, but expert_scoring is {self.expert_scoring}",
                fix="a null expert needs one softmax: key_age or key",
            )
        if self.expert_scoring == "router_and_past" and self.expert_window < 2:
            raise ConfigError("expert_window is 1", fix="router_and_past needs a past")

    def _check_multiple(self, name: str, of: str) -> None:
        given, divisor = getattr(self, name), getattr(self, of)
        if given % divisor:
            raise ConfigError(
                f"{name} {given} is not a multiple of {of} {divisor}",
                fix=f"choose {of} so that it divides {name}",
            )


STUDIED: Mapping[str, Any] = {
    "expert_age_start": "fading",
    "expert_key_norm": True,
    "expert_key_source": "hidden",
    "expert_null": False,
    "expert_shifted_heads": 0,
}
"""Fields for the comparison of variants (docs/paper.md), with the values of the model proper."""
_NO_EXPERTS: Mapping[str, Any] = {
    "num_experts": 0,
    "expert_intermediate_size": 0,
    "expert_key_size": 0,
    "expert_query_heads": 0,
    "expert_window": 0,
}
_POSITIVE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rope_theta",
    "rms_norm_eps",
)
# What the expert blob can hold (docs/format.md), and sizes whose products fit 64 bits.
_MOST: Mapping[str, float] = {
    "vocab_size": 2**31 - 1,
    "hidden_size": 2**17,
    "intermediate_size": 2**24,
    "num_hidden_layers": 1024,
    "max_position_embeddings": 2**20,
    "rope_theta": 1e30,
    "rms_norm_eps": 1.0,
    "num_experts": 4096,
    "expert_intermediate_size": 2**24,
    "expert_key_size": 4096,
    "expert_query_heads": 1024,
    "expert_window": 2**16,
}
_MOST_ROTARY = 2**27  # values of the rotary tables, which are computed when a model is made
_TYPES: Mapping[str, tuple[type, ...]] = {"int": (int,), "bool": (bool,), "float": (int, float)}


def _check_types(config: ModelConfig) -> None:
    choices = {
        "architecture": get_args(Architecture),
        "feed_forward": get_args(FeedForwardKind),
        "expert_scoring": get_args(Scoring),
        "expert_age_start": get_args(AgeStart),
        "expert_key_source": get_args(KeySource),
    }
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in choices:
            if value not in choices[field.name]:
                raise ConfigError(
                    f"{field.name} is {value!r}", fix=f"one of {', '.join(choices[field.name])}"
                )
            continue
        wanted = _TYPES[str(field.type)]
        if not isinstance(value, wanted) or (bool not in wanted and isinstance(value, bool)):
            raise ConfigError(f"{field.name} is {value!r}", fix=f"it must be of type {field.type}")


PRESETS: Mapping[str, ModelConfig] = {
    "tiny": ModelConfig(),
    "small": ModelConfig(
        vocab_size=16384,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
        expert_intermediate_size=512,
        expert_key_size=32,
    ),
    "160m": ModelConfig(
        vocab_size=50304,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        expert_intermediate_size=2048,
        expert_key_size=64,
    ),
}
"""``small`` has 34 M dense parameters; ``160m`` is the shape that every benchmark uses."""


def preset(name: str) -> ModelConfig:
    """The preset of that name.

    Raises:
        ConfigError: no preset has it.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown", fix=f"one of {', '.join(PRESETS)}")
    return PRESETS[name]
