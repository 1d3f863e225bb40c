"""Training: AdamW, a cosine schedule, resumable to the bit, data-parallel under torchrun."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from molkv_model.checkpoint import Checkpoint, load, save
from molkv_model.corpus import Corpus, TextFile, encode_corpus, train_tokenizer
from molkv_model.errors import TrainingError
from molkv_model.model_card import (
    CARD_FILE,
    CardText,
    ModelCard,
    ScoredModel,
    write_model_card,
)
from molkv_model.modeling import LanguageModel
from molkv_model.ranks import Ranks
from molkv_model.run_folder import RunFolder
from molkv_model.training_config import (
    DECISIVE,
    TrainingConfig,
    TrainingProgress,
    TrainingResult,
)
from molkv_model.training_state import load_state, save_state
from molkv_model.weight_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["TrainingConfig", "TrainingProgress", "TrainingResult", "train"]

logger = logging.getLogger(__name__)


def train(
    config: TrainingConfig, on_progress: Callable[[TrainingProgress], None] | None = None
) -> TrainingResult:
    """Train a model and write its checkpoint, model card and metrics.

    Args:
        config: what to do.
        on_progress: called after every tenth step and every evaluation, on rank 0.

    Raises:
        TrainingError: `out` is in the way; text, tokenizer or resume state cannot be used; or the
            loss is not finite.
        CheckpointError: a checkpoint to compare with cannot be read, or a weight is too large for
            `save_dtype`.
    """
    with Ranks() as ranks:
        return _Run(config, ranks, on_progress).execute()


class _Run:
    """One training run: data, model, optimizer and where it stands."""

    def __init__(
        self,
        config: TrainingConfig,
        ranks: Ranks,
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
        self.folder = RunFolder(config.out)
        if ranks.is_first:
            self.folder.require_free(resume=config.resume, force=config.force)
            for checkpoint in config.compare:
                self._require_comparable(checkpoint)
        self.files = [TextFile.read(path) for path in config.text]
        self.tokenizer_file = self._prepare_tokenizer()
        self.corpus = self._encode()
        self.digests = [file.sha256 for file in self.files]
        if config.corpus is not None:
            self.digests = [hashlib.sha256(config.corpus.read_bytes()).hexdigest()]
        self.order = self._drawn_order() if config.batches == "once" else None
        self.model = LanguageModel(config.model)
        self.model.reset_parameters(config.seed)
        self.model.to(ranks.device)
        self.optimizer = _optimizer(self.model, config.learning_rate)
        self.step = self._resume() if config.resume else 0
        if ranks.is_first:
            self.folder.drop_metrics_after(self.step)
        self.wrapped = ranks.wrap(self.model)

    def execute(self) -> TrainingResult:
        config = self.config
        losses: list[Tensor] = []
        began = time.perf_counter()
        while self.step < config.steps:
            losses.append(self._train_step())
            self.step += 1
            evaluate = self.step % config.evaluate_every == 0 or self.step == config.steps
            if evaluate or self.step % 10 == 0:
                loss, validation_loss = self.ranks.mean(torch.stack(losses).mean()), None
                elapsed = time.perf_counter() - began
                self._check_finite("loss", loss)
                if evaluate:
                    validation_loss = self.validation_loss(self.model)
                    self._check_finite("validation loss", validation_loss)
                speed = len(losses) * config.batch_tokens / elapsed
                progress = self._progress(loss, validation_loss, speed)
                if evaluate:  # after its line: a line too many is dropped by a run that goes on
                    self._save_state()
                if self.ranks.is_first:
                    self.on_progress(progress)
                losses, began = [], time.perf_counter()
        saved_loss = self.ranks.share(self._save() if self.ranks.is_first else math.nan)
        return TrainingResult(
            out=config.out,
            tokens=self.step * config.batch_tokens,
            validation_loss=saved_loss,
            parameters=_count(self.model),
        )

    def _save(self) -> float:
        """Write the checkpoint and its card, and return the loss of the weights as saved."""
        config = self.config
        dtype = getattr(torch, config.save_dtype)
        (config.out / CARD_FILE).unlink(missing_ok=True)  # it describes an earlier checkpoint
        save(self.model, config.out, dtype=dtype, tokenizer=self.tokenizer_file)
        model = self._score(config.out)
        compared = [self._score(path) for path in config.compare]
        write_model_card(config.out, self._card(model, compared))
        return model.validation_loss

    def _require_comparable(self, checkpoint: Path) -> None:
        """Refuse, before any work, a checkpoint that the held-out text cannot be scored with."""
        theirs, ours = Checkpoint(checkpoint).config, self.config
        if theirs.vocab_size != ours.model.vocab_size:
            raise TrainingError(
                f"{checkpoint}: vocab_size is {theirs.vocab_size}, this run's is "
                f"{ours.model.vocab_size}",
                fix="compare with checkpoints of the same tokenizer",
            )
        if theirs.max_position_embeddings < ours.sequence_length:
            raise TrainingError(
                f"{checkpoint}: max_position_embeddings is {theirs.max_position_embeddings}, less "
                f"than sequence_length {ours.sequence_length}",
                fix="compare with checkpoints that read as much",
            )

    def _score(self, checkpoint: Path) -> ScoredModel:
        """Load a checkpoint and measure it on the held-out text."""
        model = load(checkpoint).to(self.ranks.device)
        history = RunFolder(checkpoint).validation_losses()
        return ScoredModel(model.config, _count(model), self.validation_loss(model), history)

    @torch.no_grad()
    def validation_loss(self, model: LanguageModel) -> float:
        """Mean loss in nats a token, over evenly spaced held-out sequences."""
        length, data = self.config.sequence_length, self.corpus.validation
        count = min(self.config.validation_sequences, (len(data) - 1) // length)
        # float64 because float32 would round a late start up, past the end of the text.
        starts = torch.linspace(0, len(data) - length - 1, count, dtype=torch.float64).long()
        model.eval()
        total = math.fsum(
            float(self._loss(model, part)) * len(part)
            for part in torch.split(_windows(data, starts, length), self.sequences)
        )
        model.train()
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
        return functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())

    def _autocast(self) -> torch.autocast:
        wanted, device = self.config.precision, self.ranks.device.type
        use = wanted == "bfloat16" or (wanted == "auto" and device == "cuda")
        return torch.autocast(device, torch.bfloat16, enabled=use)

    def _batch(self) -> Tensor:
        """This rank's part of the step's batch; a function of seed and step, so resume is exact."""
        length, data = self.config.sequence_length, self.corpus.training
        total = self.sequences * self.ranks.count
        if self.order is not None:
            starts = self.order[self.step * total : (self.step + 1) * total]
        else:
            seed = (self.config.seed << 32) + self.step
            generator = torch.Generator().manual_seed(seed)
            starts = torch.randint(0, len(data) - length, (total,), generator=generator)
        mine = starts[self.ranks.rank :: self.ranks.count]
        return _windows(data, mine, length)

    def _drawn_order(self) -> Tensor:
        """int64 [sequences of the run]: where each begins, all apart; a function of the seed."""
        length, available = self.config.sequence_length, len(self.corpus.training)
        places = (available - 1) // length
        needed = self.config.steps * self.sequences * self.ranks.count
        if needed > places:
            raise TrainingError(
                f"tokens is {self.config.tokens}, the training text has {available}",
                fix='give more text, or batches="random"',
            )
        generator = torch.Generator().manual_seed(self.config.seed)
        return torch.randperm(places, generator=generator)[:needed] * length

    def _prepare_tokenizer(self) -> Path:
        """The run's tokenizer, kept with its state until the checkpoint is written."""
        kept, given = self.folder.tokenizer_file, self.config.tokenizer
        if given is not None:
            self._load_tokenizer(given)
        if self.config.resume:
            return given or kept
        if self.ranks.is_first:
            self.folder.begin()
            if given is not None:
                write_whole(kept, lambda file: shutil.copyfile(given, file))
            else:
                logger.info("training a tokenizer of %d tokens", self.config.model.vocab_size)
                tokenizer = train_tokenizer(self.files, self.config.model.vocab_size)
                write_whole(kept, lambda file: tokenizer.save(str(file)))
        self.ranks.wait()
        return kept

    def _load_tokenizer(self, file: Path) -> Tokenizer:
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
        return tokenizer

    def _encode(self) -> Corpus:
        tokenizer = self._load_tokenizer(self.tokenizer_file)
        if self.config.corpus is None:
            corpus = encode_corpus(self.files, tokenizer)
        else:
            corpus = Corpus.load(self.config.corpus)
            if corpus.largest_id() >= self.config.model.vocab_size:
                raise TrainingError(
                    f"{self.config.corpus}: has token id {corpus.largest_id()}, vocab_size is "
                    f"{self.config.model.vocab_size}",
                    fix="give the corpus of this vocabulary",
                )
        needed = self.config.sequence_length + 1
        for part, ids in (("training", corpus.training), ("held-out", corpus.validation)):
            if len(ids) < needed:
                raise TrainingError(
                    f"the {part} text has {len(ids)} tokens, one sequence needs {needed}",
                    fix="give more text or a shorter sequence_length",
                )
        return corpus

    def _progress(
        self, loss: float, validation_loss: float | None, tokens_per_s: float
    ) -> TrainingProgress:
        """Where the run stands, which the first rank writes down."""
        left = (self.config.steps - self.step) * self.config.batch_tokens / tokens_per_s
        progress = TrainingProgress(
            self.step, self.config.steps, loss, validation_loss, tokens_per_s, left
        )
        if self.ranks.is_first:
            with self.folder.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(progress)) + "\n")
        return progress

    def _check_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value} at step {self.step}", fix="lower the learning rate"
            )

    def _save_state(self) -> None:
        if self.ranks.is_first:
            save_state(
                self.folder.state_file,
                self.model,
                self.optimizer,
                step=self.step,
                run=self._fingerprint(),
            )
        self.ranks.wait()

    def _resume(self) -> int:
        return load_state(
            self.folder.state_file, self.model, self.optimizer, run=self._fingerprint()
        )

    def _fingerprint(self) -> str:
        """Everything that decides the numbers of a run, as JSON."""
        config = self.config
        return json.dumps(
            {
                "model": config.model.to_json(),
                "text": self.digests,
                "tokenizer": hashlib.sha256(self.tokenizer_file.read_bytes()).hexdigest(),
                **{name: getattr(config, name) for name in DECISIVE},
            },
            sort_keys=True,
        )

    def _text_bytes(self) -> int:
        if self.config.corpus is not None:
            return self.config.corpus.stat().st_size
        return sum(len(file.text.encode()) for file in self.files)

    def _card(self, model: ScoredModel, compared: list[ScoredModel]) -> ModelCard:
        config = self.config
        text = CardText(
            sha256=self.digests,
            size=self._text_bytes(),
            training=len(self.corpus.training),
            validation=len(self.corpus.validation),
        )
        return ModelCard(
            model=model,
            text=text,
            tokens=self.step * config.batch_tokens,
            steps=self.step,
            dtype=config.save_dtype,
            settings={name: getattr(config, name) for name in DECISIVE},
            command=config.command,
            compared=compared,
        )


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine from the peak to a tenth of it."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warmup * (0.1 + 0.9 * cosine)


def _optimizer(model: LanguageModel, rate: float) -> torch.optim.AdamW:
    # Decay would pull the age bias towards a flat window; norms are scales, not directions.
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
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
    return data[starts[:, None] + torch.arange(length + 1)].long()


def _count(model: nn.Module) -> int:
    """Parameters, experts included."""
    return sum(parameter.numel() for parameter in model.parameters())
