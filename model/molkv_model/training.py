"""Training: AdamW, a cosine schedule, resumable to the bit, data-parallel under torchrun."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from molkv_model.checkpoint import TOKENIZER_FILE, save
from molkv_model.config import ModelConfig
from molkv_model.corpus import Corpus, TextFile, encode_corpus, train_tokenizer
from molkv_model.errors import TrainingError
from molkv_model.model_card import write_model_card
from molkv_model.modeling import LanguageModel

__all__ = ["TrainingConfig", "TrainingProgress", "TrainingResult", "train"]

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
STATE_FOLDER = "training-state"
_VALIDATION_SEQUENCES = 64


@dataclass(frozen=True)
class TrainingConfig:
    """What to train and how long.

    Attributes:
        model: the hyper-parameters.
        text: UTF-8 files.
        out: the checkpoint folder to write.
        tokens: training tokens in all, over all ranks.
        batch_tokens: tokens a step, over all ranks.
        sequence_length: tokens a sequence.
        learning_rate: the schedule's peak.
        warmup_steps: steps until the peak.
        seed: of weights and batches.
        tokenizer: a ``tokenizer.json`` to use; None trains one on the text.
        precision: of the matrix products; ``auto`` is bfloat16 on CUDA, float32 elsewhere.
        save_dtype: of the checkpoint's tensors.
        evaluate_every: steps between validations, each followed by a save.
        resume: continue from the state that an interrupted run left in `out`.

    Raises:
        TrainingError: a number is out of range.
    """

    model: ModelConfig
    text: tuple[Path, ...]
    out: Path
    tokens: int = 4_000_000
    batch_tokens: int = 2048
    sequence_length: int = 256
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    seed: int = 0
    tokenizer: Path | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    evaluate_every: int = 250
    resume: bool = False

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_tokens", "sequence_length", "evaluate_every"):
            if getattr(self, name) <= 0:
                raise TrainingError(f"{name} is {getattr(self, name)}", fix="it must be positive")
        if self.sequence_length > self.model.max_position_embeddings:
            raise TrainingError(
                f"sequence_length {self.sequence_length} exceeds the context "
                f"{self.model.max_position_embeddings}"
            )
        if self.batch_tokens % self.sequence_length:
            raise TrainingError(
                f"batch_tokens {self.batch_tokens} is not a multiple of sequence_length "
                f"{self.sequence_length}"
            )
        if not self.text:
            raise TrainingError("no text was given", fix="name at least one UTF-8 file")

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return max(1, self.tokens // self.batch_tokens)


@dataclass(frozen=True)
class TrainingProgress:
    """One line of ``metrics.jsonl``.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: mean training loss since the last line, nats a token.
        validation_loss: nats a token, on lines that end an evaluation.
        tokens_per_s: since the last line.
        seconds_left: estimated.
    """

    step: int
    steps: int
    loss: float
    validation_loss: float | None
    tokens_per_s: float
    seconds_left: float


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        out: the checkpoint folder.
        tokens: tokens seen.
        validation_loss: nats a token on the held-out split, at the end.
        parameters: of the model, experts included.
    """

    out: Path
    tokens: int
    validation_loss: float
    parameters: int


def train(
    config: TrainingConfig, on_progress: Callable[[TrainingProgress], None] | None = None
) -> TrainingResult:
    """Train a model and write its checkpoint, model card and metrics.

    Args:
        config: what to do.
        on_progress: called after every tenth step and every evaluation, on rank 0.

    Raises:
        TrainingError: text, tokenizer or resume state cannot be used, or the loss is not finite.
    """
    with _Ranks() as ranks:
        return _Run(config, ranks, on_progress).execute()


class _Ranks:
    """This process's place among the ranks that torchrun started; one rank without it."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def __enter__(self) -> _Ranks:
        if self.count > 1:
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            torch.distributed.init_process_group(backend)
        return self

    def __exit__(self, *_: object) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        if self.count > 1:
            torch.distributed.barrier()

    def wrap(self, model: LanguageModel) -> nn.Module:
        return DistributedDataParallel(model) if self.count > 1 else model


class _Run:
    """One training run: data, model, optimizer and where it stands."""

    def __init__(
        self,
        config: TrainingConfig,
        ranks: _Ranks,
        on_progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        self.config = config
        self.ranks = ranks
        self.on_progress = on_progress or (lambda _: None)
        sequences = config.batch_tokens // config.sequence_length
        if sequences % ranks.count:
            raise TrainingError(
                f"{sequences} sequences a step do not divide among {ranks.count} ranks",
                fix="choose batch_tokens as a multiple of sequence_length times the ranks",
            )
        self.sequences = sequences // ranks.count
        self.state_folder = config.out / STATE_FOLDER
        if ranks.is_first:
            config.out.mkdir(parents=True, exist_ok=True)
        self.files = [TextFile.read(path) for path in config.text]
        self.tokenizer_file = self._prepare_tokenizer()
        self.corpus = self._encode()
        self.model = LanguageModel(config.model)
        self.model.reset_parameters(config.seed)
        self.model.to(ranks.device)
        self.optimizer = _optimizer(self.model, config.learning_rate)
        self.step = self._resume() if config.resume else 0
        self.wrapped = ranks.wrap(self.model)

    def execute(self) -> TrainingResult:
        config, validation_loss = self.config, math.nan
        losses: list[Tensor] = []
        began = time.perf_counter()
        while self.step < config.steps:
            losses.append(self._train_step())
            self.step += 1
            evaluate = self.step % config.evaluate_every == 0 or self.step == config.steps
            if evaluate or self.step % 10 == 0:
                loss = float(torch.stack(losses).mean())
                elapsed = time.perf_counter() - began
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"loss is {loss} at step {self.step}", fix="lower the learning rate"
                    )
                validation_loss = self.validation_loss() if evaluate else validation_loss
                speed = len(losses) * config.batch_tokens / elapsed
                self._report(loss, validation_loss if evaluate else None, speed)
                if evaluate:
                    self._save_state()
                losses, began = [], time.perf_counter()
        if math.isnan(validation_loss):  # resumed a run that was complete
            validation_loss = self.validation_loss()
        result = TrainingResult(
            out=config.out,
            tokens=self.step * config.batch_tokens,
            validation_loss=validation_loss,
            parameters=sum(p.numel() for p in self.model.parameters()),
        )
        if self.ranks.is_first:
            dtype = getattr(torch, config.save_dtype)
            save(self.model, config.out, dtype=dtype, tokenizer=self.tokenizer_file)
            write_model_card(config.out, self._card_facts(result))
        self.ranks.wait()
        return result

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss in nats a token, over evenly spaced held-out sequences."""
        length, data = self.config.sequence_length, self.corpus.validation
        count = min(_VALIDATION_SEQUENCES, (len(data) - 1) // length)
        if count < 1:
            raise TrainingError(
                f"the held-out text has {len(data)} tokens, one sequence needs {length + 1}",
                fix="give more text or a shorter sequence_length",
            )
        starts = torch.linspace(0, len(data) - length - 1, count).long()
        self.model.eval()
        total = sum(
            float(self._loss(self.model, part)) * len(part)
            for part in _windows(data, starts, length).split(self.sequences)
        )
        self.model.train()
        return total / count

    def _train_step(self) -> Tensor:
        config = self.config
        rate = learning_rate(self.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(self.wrapped, self._batch())
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _loss(self, model: nn.Module, windows: Tensor) -> Tensor:
        windows = windows.to(self.ranks.device)
        with self._autocast():
            logits = model(windows[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        wanted, device = self.config.precision, self.ranks.device.type
        use = wanted == "bfloat16" or (wanted == "auto" and device == "cuda")
        return torch.autocast(device, torch.bfloat16, enabled=use)

    def _batch(self) -> Tensor:
        """This rank's part of the step's batch; a function of seed and step, so resume is exact."""
        seed = (self.config.seed << 32) + self.step
        generator = torch.Generator().manual_seed(seed)
        length, data = self.config.sequence_length, self.corpus.training
        total = self.sequences * self.ranks.count
        starts = torch.randint(0, len(data) - length, (total,), generator=generator)
        mine = starts[self.ranks.rank :: self.ranks.count]
        return _windows(data, mine, length)

    def _prepare_tokenizer(self) -> Path:
        target = self.config.out / TOKENIZER_FILE
        if self.config.tokenizer is not None:
            target = self.config.tokenizer
        elif self.ranks.is_first and not (self.config.resume and target.is_file()):
            logger.info("training a tokenizer of %d tokens", self.config.model.vocab_size)
            tokenizer = train_tokenizer(self.files, self.config.model.vocab_size)
            tokenizer.save(str(target))
        self.ranks.wait()
        return target

    def _encode(self) -> Corpus:
        file = self.tokenizer_file
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception
            raise TrainingError(f"{file}: not a tokenizer: {error}") from None
        if tokenizer.get_vocab_size() > self.config.model.vocab_size:
            raise TrainingError(
                f"{file}: has {tokenizer.get_vocab_size()} tokens, vocab_size is "
                f"{self.config.model.vocab_size}",
                fix="choose a larger vocab_size",
            )
        corpus = encode_corpus(self.files, tokenizer)
        if len(corpus.training) <= self.config.sequence_length:
            raise TrainingError(
                f"the text is only {len(corpus.training)} tokens long", fix="give more text"
            )
        return corpus

    def _report(self, loss: float, validation_loss: float | None, tokens_per_s: float) -> None:
        if not self.ranks.is_first:
            return
        left = (self.config.steps - self.step) * self.config.batch_tokens / tokens_per_s
        progress = TrainingProgress(
            self.step, self.config.steps, loss, validation_loss, tokens_per_s, left
        )
        with (self.config.out / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(progress)) + "\n")
        self.on_progress(progress)

    def _save_state(self) -> None:
        """Weights and optimizer moments, as safetensors; the step is in the metadata file."""
        if self.ranks.is_first:
            self.state_folder.mkdir(exist_ok=True)
            tensors = {f"weight.{n}": p.detach().cpu() for n, p in self.model.named_parameters()}
            for name, parameter in self.model.named_parameters():
                for moment in ("exp_avg", "exp_avg_sq"):
                    tensors[f"{moment}.{name}"] = self.optimizer.state[parameter][moment].cpu()
            file = self.state_folder / "state.safetensors"
            temporary = file.with_suffix(".partial")
            save_file(tensors, temporary, {"step": str(self.step), "run": self._fingerprint()})
            temporary.replace(file)
        self.ranks.wait()

    def _resume(self) -> int:
        file = self.state_folder / "state.safetensors"
        if not file.is_file():
            raise TrainingError(f"{file}: nothing to resume", fix="start without --resume")
        metadata = _safetensors_metadata(file)
        if metadata.get("run") != self._fingerprint():
            raise TrainingError(
                f"{file}: was written by a run with other settings or text",
                fix="resume with the same settings, or start without --resume",
            )
        tensors = load_file(file)
        step = int(metadata["step"])
        for name, parameter in self.model.named_parameters():
            parameter.data.copy_(tensors[f"weight.{name}"])
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg.{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter.device),
            }
        return step

    def _fingerprint(self) -> str:
        """Everything that decides the numbers of a run, as JSON."""
        config = self.config
        return json.dumps(
            {
                "model": config.model.to_json(),
                "text": [file.sha256 for file in self.files],
                **{name: getattr(config, name) for name in _DECISIVE},
            },
            sort_keys=True,
        )

    def _card_facts(self, result: TrainingResult) -> dict[str, Any]:
        return {
            "config": self.config.model,
            "files": {file.name: file.sha256 for file in self.files},
            "bytes": sum(len(file.text.encode()) for file in self.files),
            "tokens": result.tokens,
            "training_tokens": len(self.corpus.training),
            "validation_loss": result.validation_loss,
            "parameters": result.parameters,
            "settings": {name: getattr(self.config, name) for name in _DECISIVE},
        }


_DECISIVE = (
    "tokens",
    "batch_tokens",
    "sequence_length",
    "learning_rate",
    "warmup_steps",
    "seed",
    "precision",
)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine from the peak to a tenth of it."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warmup * (0.1 + 0.9 * cosine)


def _optimizer(model: LanguageModel, rate: float) -> torch.optim.AdamW:
    # Decay would pull the age bias towards a flat window; norms are scales, not directions.
    matrices, vectors = [], []
    for name, parameter in model.named_parameters():
        undecayed = parameter.ndim <= 1 or name.endswith("age_bias")
        (vectors if undecayed else matrices).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def _windows(data: Tensor, starts: Tensor, length: int) -> Tensor:
    """int64 [starts, length + 1]: inputs and, one further, targets."""
    return data[starts[:, None] + torch.arange(length + 1)]


def _safetensors_metadata(file: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return dict(tensors.metadata() or {})
    except SafetensorError as error:
        raise TrainingError(f"{file}: damaged: {error}", fix="start without --resume") from None
