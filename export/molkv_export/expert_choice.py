"""Chooses the smallest precision of the expert rows that a text does not tell from the trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from molkv_export.divergence import Comparison, block_rows
from molkv_export.errors import ExportError
from molkv_export.evaluate import Evaluation, cut, score
from molkv_export.expert_precisions import row_bytes, row_precisions
from molkv_export.plan import require_exportable
from molkv_export.rounded_experts import round_experts
from molkv_export.threads import torch_threads
from molkv_export.trained_model import TrainedModel
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.errors import MolkvError, TokenizerError
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.text import load_tokenizer

__all__ = ["MAX_KL", "MOST_TOKENS", "ExpertChoice", "ExpertTrial", "choose_experts"]

logger = logging.getLogger(__name__)

MAX_KL = 0.01
"""Nats a token that rounding the rows may cost, unless told otherwise."""

MOST_TOKENS = 4096
"""Of the calibration text; more are not read."""

# Texts have fewer characters a token; of a long one, the rest need not be tokenized.
_CHARACTERS = 16


@dataclass(frozen=True)
class ExpertTrial:
    """What one precision of the rows costs.

    Attributes:
        experts: the precision.
        row_bytes: of a token's row.
        comparison: with the trained experts; None where they cannot be stored so.
        problem: why they cannot; empty otherwise.
    """

    experts: ExpertPrecision
    row_bytes: int
    comparison: Comparison | None
    problem: str = ""

    def __str__(self) -> str:
        if self.comparison is None:
            return f"{self.experts}: {self.problem}"
        return f"{self.experts} {self.comparison.kl_divergence.mean:.3g}"


@dataclass(frozen=True)
class ExpertChoice:
    """The precision chosen, and why.

    Attributes:
        experts: the smallest that stays under the limit.
        max_kl: the limit, in nats a token.
        tokens: positions compared.
        trials: what was measured, the smallest rows first; the last one is the choice.
    """

    experts: ExpertPrecision
    max_kl: float
    tokens: int
    trials: tuple[ExpertTrial, ...]


def choose_experts(
    checkpoint: str | Path,
    text: str,
    *,
    max_kl: float = MAX_KL,
    tokenizer: str | Path | None = None,
    on_tokens: Callable[[str, int, int], None] | None = None,
) -> ExpertChoice:
    """Try the precisions of the expert rows on a text, the smallest rows first.

    torch computes in float32, once with the trained experts and once with experts rounded to each
    precision; all else is the same. So what is measured is what the rows cost alone, whatever the
    backends and the precision of the dense weights.

    Args:
        checkpoint: a folder in Hugging Face layout.
        text: to calibrate on: like what the model will write, and not what it was trained on. Its
            first `MOST_TOKENS` tokens are used.
        max_kl: the most nats a token between the trained experts' predictions and the rounded
            ones', as a mean over the text.
        tokenizer: a ``tokenizer.json`` to use instead of the checkpoint's.
        on_tokens: called with a step's name, tokens done and tokens in all.

    Raises:
        ExportError: the model has no experts, or no precision stays under the limit.
        ModelError: the checkpoint cannot be used.
        TokenizerError: there is no tokenizer, or it does not fit the model.
        UsageError: the text is shorter than two tokens.
    """
    return _Calibration(Checkpoint(checkpoint), text, max_kl, tokenizer, on_tokens).choose()


class _Calibration:
    def __init__(
        self,
        checkpoint: Checkpoint,
        text: str,
        max_kl: float,
        tokenizer: str | Path | None,
        on_tokens: Callable[[str, int, int], None] | None,
    ) -> None:
        if not max_kl > 0:
            raise ExportError(
                f"the limit of the KL divergence is {max_kl}", fix="give nats above 0, such as 0.01"
            )
        if not checkpoint.config.has_experts:
            raise ExportError(
                f"{checkpoint.path}: the model has no experts whose precision could be chosen",
                fix="leave --experts out",
            )
        require_exportable(checkpoint.config)
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.max_kl = max_kl
        self.pieces = cut(self._token_ids(text, tokenizer), self.config.max_position_embeddings)
        self.on_tokens = on_tokens or (lambda *_: None)

    def choose(self) -> ExpertChoice:
        trials: list[ExpertTrial] = []
        with torch_threads(self.config.hidden_size):
            for trial in self._trials():
                trials.append(trial)
                logger.info("%s", trial)
                comparison = trial.comparison
                if comparison is not None and comparison.kl_divergence.mean <= self.max_kl:
                    count = comparison.kl_divergence.count
                    return ExpertChoice(trial.experts, self.max_kl, count, tuple(trials))
        raise ExportError(
            f"{self.checkpoint.path}: no precision of the expert rows stays under "
            f"{self.max_kl:g} nats a token on the calibration text: {', '.join(map(str, trials))}",
            fix="raise the limit (--max-kl), or choose a precision",
        )

    def _trials(self) -> Iterator[ExpertTrial]:
        trained = TrainedModel(self.checkpoint.load(), remember=True)
        self._score(trained, "trained experts")
        # The trained predictions are remembered, so the weights can serve the trials too.
        rounded = TrainedModel(trained.model)
        for experts in row_precisions(self.config):
            stride = row_bytes(self.config, experts)
            try:
                round_experts(rounded.model, experts)
                result = self._score(rounded, f"{experts} experts", trained)
            except MolkvError as error:
                yield ExpertTrial(experts, stride, None, error.problem)
            else:
                yield ExpertTrial(experts, stride, result.comparison)

    def _score(
        self, model: TrainedModel, name: str, against: TrainedModel | None = None
    ) -> Evaluation:
        done, total = 0, sum(map(len, self.pieces))

        def on_tokens(count: int) -> None:
            nonlocal done
            done += count
            self.on_tokens(name, done, total)

        rows = block_rows(self.config.vocab_size)
        return score(model, self.pieces, rows, against=against, on_tokens=on_tokens)

    def _token_ids(self, text: str, given: str | Path | None) -> list[int]:
        file = self.checkpoint.tokenizer_file if given is None else Path(given)
        if file is None:
            raise TokenizerError(
                f"{self.checkpoint.path}: has no tokenizer, so no text can calibrate the experts",
                fix="name a tokenizer.json with --tokenizer, or choose the experts' precision",
            )
        tokenizer = load_tokenizer(file, self.config.vocab_size)
        beginning = text[: _CHARACTERS * MOST_TOKENS]
        ids: list[int] = tokenizer.encode(beginning, add_special_tokens=False).ids
        return ids[:MOST_TOKENS]
