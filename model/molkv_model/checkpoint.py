"""Checkpoints: a folder in Hugging Face layout, read strictly and never through pickle.

config.json                         ModelConfig, model_type "molkv"
model.safetensors                   or model-00001-of-0000N.safetensors with an index
tokenizer.json                      optional: without one, ids go in and ids come out
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from molkv_model.config import ModelConfig
from molkv_model.errors import CheckpointError
from molkv_model.modeling import LanguageModel, rotary_table
from molkv_model.published_mole import is_published_mole, published_config, published_names

__all__ = ["Checkpoint", "load", "save"]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"


class Checkpoint:
    """An open checkpoint folder: its config, and its tensors read one at a time.

    Names are the model's own; a published MoLE checkpoint is translated while reading.

    Attributes:
        path: the folder.
        config: the model's hyper-parameters.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is unknown, missing or misshapen.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        fields = _read_json(self.path / CONFIG_FILE)
        self._published = is_published_mole(fields)
        source = str(self.path / CONFIG_FILE)
        self.config = (
            published_config(fields, source=source)
            if self._published
            else ModelConfig.from_json(fields, source=source)
        )
        self._files = self._find_tensors()
        with torch.device("meta"):
            model = LanguageModel(self.config)
        self._shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        self._sources = self._match_sources()

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
        parts = [self._read(source) for source in self._sources[name]]
        value = torch.stack(parts) if self._is_stacked(name) else parts[0]
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{self.path}: tensor {name} holds NaN or infinity",
                fix="training diverged or the file is damaged; use an earlier checkpoint",
            )
        return value if dtype is None else value.to(dtype)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of a matrix, read without its other rows, as float32."""
        (source,) = self._sources[name]
        with safe_open(self._files[source], framework="pt") as weights:
            value: Tensor = weights.get_slice(source)[start:stop]
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{self.path}: tensor {name} holds NaN or infinity in rows {start}..{stop - 1}",
                fix="training diverged or the file is damaged; use an earlier checkpoint",
            )
        return value.float()

    def identity(self) -> bytes:
        """sha256 over the weights: what ties an expert blob to its dense graph.

        Hashed are, for every tensor in the order of its name, its name, dtype, shape and bytes.
        """
        digest = hashlib.sha256()
        for name in self.names:
            value = self.tensor(name, dtype=None).contiguous()
            digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.view(torch.uint8).numpy().data)
        return digest.digest()

    def load(self) -> LanguageModel:
        """The float32 model, in eval mode."""
        with torch.device("meta"):
            model = LanguageModel(self.config)
        model.load_state_dict({name: self.tensor(name) for name in self.names}, assign=True)
        # The rotary tables are computed, not stored, and the meta device left them empty.
        model.cosine, model.sine = rotary_table(self.config)
        return model.eval()

    def _find_tensors(self) -> dict[str, Path]:
        """Every stored tensor's name and file, from the index or the single file."""
        index_file = self.path / INDEX_FILE
        if index_file.is_file():
            weight_map = _read_json(index_file).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{index_file}: weight_map is missing or empty")
            names = sorted({str(name) for name in weight_map.values()})
        else:
            weight_map, names = None, [WEIGHTS_FILE]
        found: dict[str, Path] = {}
        for name in names:
            file = self.path / name
            if file.parent != self.path:
                raise CheckpointError(
                    f"{index_file}: {name} lies outside the folder", fix="use bare file names"
                )
            for tensor in _tensor_names(file):
                if tensor in found:
                    raise CheckpointError(f"{file}: tensor {tensor} is in two files")
                found[tensor] = file
        if weight_map is not None and (
            wrong := sorted(
                set(weight_map) ^ set(found)
                | {t for t, f in found.items() if weight_map.get(t) != f.name}
            )
        ):
            raise CheckpointError(
                f"{index_file}: index and shards disagree about {_some(wrong)}",
                fix="copy the folder again, all of it",
            )
        return found

    def _match_sources(self) -> dict[str, list[str]]:
        """For every tensor of the model, the stored tensors it is made of."""
        sources = {
            name: published_names(name, self.config) if self._published else [name]
            for name in self._shapes
        }
        wanted = [stored for group in sources.values() for stored in group]
        # A tied head may be stored all the same; it is the embedding again.
        ignored = {"lm_head.weight"} if self.config.tie_word_embeddings else set()
        if unknown := sorted(set(self._files) - set(wanted) - ignored):
            raise CheckpointError(
                f"{self.path}: unknown tensor {_some(unknown)}",
                fix="the weights do not belong to this config.json",
            )
        if missing := sorted(set(wanted) - set(self._files)):
            raise CheckpointError(
                f"{self.path}: missing tensor {_some(missing)}",
                fix="the weights do not belong to this config.json, or a shard is missing",
            )
        for name, group in sources.items():
            expected = self._shapes[name][1:] if self._is_stacked(name) else self._shapes[name]
            for stored in group:
                given = self._stored_shape(stored)
                if given != expected:
                    raise CheckpointError(
                        f"{self._files[stored]}: tensor {stored} has shape {list(given)}, "
                        f"config.json asks for {list(expected)}",
                        fix="the weights do not belong to this config.json",
                    )
        return sources

    def _is_stacked(self, name: str) -> bool:
        return self._published and name.endswith(("experts.up_proj", "experts.down_proj"))

    def _stored_shape(self, stored: str) -> tuple[int, ...]:
        with safe_open(self._files[stored], framework="pt") as weights:
            return tuple(weights.get_slice(stored).get_shape())

    def _read(self, stored: str) -> Tensor:
        with safe_open(self._files[stored], framework="pt") as weights:
            value: Tensor = weights.get_tensor(stored)
        return value


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
    """Write a checkpoint folder; weights go to temporary names and are renamed when complete.

    Args:
        model: what to save.
        path: the folder, made if need be.
        dtype: of the stored tensors.
        tokenizer: a ``tokenizer.json`` to put beside the weights.
        shard_bytes: weights larger than this are cut into several files with an index.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.detach().to("cpu", dtype).contiguous()
        for name, value in model.state_dict().items()
    }
    shards = list(_shards(tensors, shard_bytes))
    total = len(shards)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = WEIGHTS_FILE if total == 1 else f"model-{number:05d}-of-{total:05d}.safetensors"
        _write(folder / name, lambda file, shard=shard: save_file(shard, file, {"format": "pt"}))
        weight_map |= dict.fromkeys(shard, name)
    if total > 1:
        index = {
            "metadata": {"total_size": sum(value.nbytes for value in tensors.values())},
            "weight_map": weight_map,
        }
        _write_json(folder / INDEX_FILE, index)
    _write_json(folder / CONFIG_FILE, model.config.to_json())
    if tokenizer is not None and Path(tokenizer).resolve() != (folder / TOKENIZER_FILE).resolve():
        _write(folder / TOKENIZER_FILE, lambda file: shutil.copyfile(tokenizer, file))


def _shards(tensors: Mapping[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, value in sorted(tensors.items()):
        if shard and size + value.nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = value
        size += value.nbytes
    yield shard


def _tensor_names(file: Path) -> list[str]:
    if not file.is_file():
        raise CheckpointError(
            f"{file}: file is missing", fix="weights must be safetensors, whole or in shards"
        )
    try:
        with safe_open(file, framework="pt") as weights:
            return list(weights.keys())
    except SafetensorError as error:
        raise CheckpointError(
            f"{file}: not a valid safetensors file: {error}", fix="copy the file again"
        ) from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{file}: file is missing", fix="a checkpoint is a folder with config.json"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file}: holds {type(fields).__name__}, expected an object")
    return fields


def _write(file: Path, write: Any) -> None:
    temporary = file.with_name(f".{file.name}.partial")
    try:
        write(temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    _write(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
