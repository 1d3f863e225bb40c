"""Checkpoints: a folder in Hugging Face layout, read strictly and never through pickle.

config.json                         ModelConfig, model_type "molkv"
model.safetensors                   or model-00001-of-0000N.safetensors with an index
tokenizer.json                      optional: without one, ids go in and ids come out
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from molkv_model.config import ModelConfig
from molkv_model.errors import CheckpointError
from molkv_model.modeling import LanguageModel
from molkv_model.published_mole import is_published_mole, published_config, published_names
from molkv_model.weight_files import (
    StoredTensor,
    find_tensors,
    read_json,
    replace_files,
    some,
    write_json,
    write_tensors,
    write_whole,
)

__all__ = ["Checkpoint", "load", "save"]

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
_PARTIAL = ".partial-"


class Checkpoint:
    """An open checkpoint folder: its config, and its tensors read one at a time.

    Names are the model's own; a published MoLE checkpoint is translated while reading.

    Attributes:
        path: the folder.
        config: the model's hyper-parameters.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is unknown, missing or misshapen.
        ConfigError: ``config.json`` cannot be used.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        config_file = self.path / CONFIG_FILE
        fields = read_json(config_file)
        self._published = is_published_mole(fields)
        read_config = published_config if self._published else ModelConfig.from_json
        self.config = read_config(fields, source=str(config_file))
        with torch.device("meta"):
            model = LanguageModel(self.config)
        self._shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        self._sources = self._match(find_tensors(self.path))

    @property
    def tokenizer_file(self) -> Path | None:
        """``tokenizer.json``, if the checkpoint has one."""
        file = self.path / TOKENIZER_FILE
        return file if file.is_file() else None

    @property
    def names(self) -> list[str]:
        """Names of the model's tensors, sorted."""
        return sorted(self._shapes)

    def size(self, name: str) -> int:
        """Values in a tensor."""
        return math.prod(self._shapes[name])

    def tensor(self, name: str, dtype: torch.dtype | None = torch.float32) -> Tensor:
        """One tensor of the model, checked for NaN and infinity.

        Args:
            name: as in the model's state dict.
            dtype: converted to this; None keeps the stored one.

        Raises:
            CheckpointError: the values are not finite.
        """
        parts = [stored.read() for stored in self._sources[name]]
        value = torch.stack(parts) if self._is_stacked(name) else parts[0]
        return value if dtype is None else value.to(dtype)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of a matrix, read without its other rows, as float32.

        Raises:
            CheckpointError: the values are not finite.
        """
        (stored,) = self._sources[name]
        return stored.rows(start, stop).float()

    def mapped(self, name: str) -> list[Tensor]:
        """A tensor as it is stored: mapped from its files, without a copy and without a check.

        Memory pages are read when they are used, and the system can take them back.

        Args:
            name: as in the model's state dict.

        Returns:
            the whole tensor, or its entries where a published MoLE stores them one by one.
        """
        return [stored.mapped() for stored in self._sources[name]]

    def identity(self) -> bytes:
        """sha256 over the weights: what ties an expert blob to its dense graph.

        Hashed are, for every tensor in the order of its name, its name, dtype, shape and bytes.
        """
        digest = hashlib.sha256()
        for name in self.names:
            value = self.tensor(name, dtype=None).contiguous()
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.view(torch.uint8).numpy().data)
            del value  # else it would be mapped while the next one is read
        return digest.digest()

    def load(self) -> LanguageModel:
        """The float32 model, in eval mode."""
        with torch.device("meta"):
            model = LanguageModel(self.config)
        model.load_state_dict({name: self.tensor(name) for name in self.names}, assign=True)
        return model.eval()

    def _match(self, found: dict[str, StoredTensor]) -> dict[str, list[StoredTensor]]:
        """For every tensor of the model, the stored tensors it is made of."""
        names = {
            name: published_names(name, self.config) if self._published else [name]
            for name in self._shapes
        }
        wanted = {stored for group in names.values() for stored in group}
        # The embedding is the head where they are tied, whether a head is stored or not.
        ignored = {"lm_head.weight"} if self.config.tie_word_embeddings else set()
        if unknown := sorted(set(found) - wanted - ignored):
            raise CheckpointError(
                f"{found[unknown[0]].file}: unknown tensor {some(unknown)}",
                fix="the weights do not belong to this config.json",
            )
        if missing := sorted(wanted - set(found)):
            raise CheckpointError(
                f"{self.path}: missing tensor {some(missing)}",
                fix="the weights do not belong to this config.json, or a shard is missing",
            )
        for name, group in names.items():
            shape = self._shapes[name][1:] if self._is_stacked(name) else self._shapes[name]
            for stored in group:
                if found[stored].shape != shape:
                    raise CheckpointError(
                        f"{found[stored].file}: tensor {stored} has shape "
                        f"{list(found[stored].shape)}, config.json asks for {list(shape)}",
                        fix="the weights do not belong to this config.json",
                    )
        return {name: [found[stored] for stored in group] for name, group in names.items()}

    def _is_stacked(self, name: str) -> bool:
        return self._published and name.endswith(("experts.up_proj", "experts.down_proj"))


def load(path: str | Path) -> LanguageModel:
    """Load a checkpoint folder.

    Args:
        path: a folder in Hugging Face layout, of MoLKV or of published MoLE.

    Returns:
        the float32 torch module in eval mode: ``forward(input_ids [B, T]) -> logits [B, T, V]``.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is unknown, missing, misshapen
            or not finite.
        ConfigError: ``config.json`` cannot be used.
    """
    return Checkpoint(path).load()


def save(
    model: LanguageModel,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    tokenizer: str | Path | None = None,
    shard_bytes: int = 4 << 30,
) -> None:
    """Write a checkpoint folder.

    The files are written into a hidden folder inside and moved when all are complete,
    ``config.json`` last. A folder that a crash left between two moves has none, and is refused.

    Args:
        model: what to save.
        path: the folder, made if need be; a checkpoint that it holds is replaced, except for its
            tokenizer if no other is given.
        dtype: of the stored tensors.
        tokenizer: a ``tokenizer.json`` to put beside the weights.
        shard_bytes: weights larger than this are cut into several files with an index.

    Raises:
        CheckpointError: a weight is not finite in `dtype`.
    """
    folder = Path(path)
    tensors = {
        name: value.detach().to("cpu", dtype).contiguous()
        for name, value in model.state_dict().items()
    }
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(
                f"{folder}: tensor {name} holds NaN or infinity as {dtype}",
                fix="save as float32, or use an earlier checkpoint if training diverged",
            )
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_PARTIAL}*"):  # by a save that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=folder) as name:
        finished = Path(name)
        write_tensors(finished, tensors, shard_bytes)
        if tokenizer is not None:
            write_whole(finished / TOKENIZER_FILE, lambda file: shutil.copyfile(tokenizer, file))
        write_json(finished / CONFIG_FILE, model.config.to_json())
        replace_files(folder, finished, last=CONFIG_FILE)
