"""Safetensors weights in a folder: one file, or shards with an index. Never pickle."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from molkv_model.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = [
    "StoredTensor",
    "find_tensors",
    "read_json",
    "replace_files",
    "some",
    "write_json",
    "write_tensors",
    "write_whole",
]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_WEIGHT_FILES = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_DTYPES = ("F32", "F16", "BF16")
_PIECE = 1 << 22


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is stored, and what its file's header says about it.

    Attributes:
        name: in the file.
        file: the safetensors file.
        shape: of the stored tensor.
        dtype: as safetensors names it.
    """

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Tensor:
        """The tensor in its stored dtype.

        Raises:
            CheckpointError: the values are not finite.
        """
        with safe_open(self.file, framework="pt") as weights:
            return self._finite(weights.get_tensor(self.name))

    def mapped(self) -> Tensor:
        """The tensor in its stored dtype, mapped from the file: not copied, and not checked."""
        with safe_open(self.file, framework="pt") as weights:
            value: Tensor = weights.get_tensor(self.name)
        return value

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop), read without the others, in the stored dtype.

        Raises:
            CheckpointError: the values are not finite.
        """
        with safe_open(self.file, framework="pt") as weights:
            return self._finite(weights.get_slice(self.name)[start:stop])

    def _finite(self, value: Tensor) -> Tensor:
        # In pieces: the answer for a whole tensor would take as much memory as the tensor.
        if not all(bool(piece.isfinite().all()) for piece in torch.split(value.flatten(), _PIECE)):
            raise CheckpointError(
                f"{self.file}: tensor {self.name} holds NaN or infinity",
                fix="training diverged or the file is damaged; use an earlier checkpoint",
            )
        return value


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder's weights by name; no value is read.

    Raises:
        CheckpointError: a file is missing, damaged or outside the folder, a tensor is in two files
            or of a dtype that is no float, or the index says otherwise than the shards.
    """
    index_file = folder / INDEX_FILE
    if not index_file.is_file():
        return {tensor.name: tensor for tensor in _headers(folder / WEIGHTS_FILE)}
    weight_map = read_json(index_file).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise CheckpointError(
            f"{index_file}: weight_map is missing or malformed",
            fix="it must map every tensor to a file name",
        )
    found: dict[str, StoredTensor] = {}
    for name in sorted(set(weight_map.values())):
        file = folder / name
        if file.parent != folder:
            raise CheckpointError(
                f"{index_file}: {name} lies outside the folder", fix="use bare file names"
            )
        for tensor in _headers(file):
            if tensor.name in found:
                raise CheckpointError(
                    f"{file}: tensor {tensor.name} is in {found[tensor.name].file.name} too",
                    fix="copy the folder again, all of it",
                )
            found[tensor.name] = tensor
    stored_in = {name: tensor.file.name for name, tensor in found.items()}
    if wrong := sorted({name for name, _ in weight_map.items() ^ stored_in.items()}):
        raise CheckpointError(
            f"{index_file}: index and shards disagree about {some(wrong)}",
            fix="copy the folder again, all of it",
        )
    return found


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    """Write contiguous tensors.

    Args:
        folder: an existing folder without weights.
        tensors: on the CPU, by name.
        shard_bytes: more than this is cut into several files with an index.
    """
    shards = list(_shards(tensors, shard_bytes))
    total = len(shards)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = WEIGHTS_FILE if total == 1 else f"model-{number:05d}-of-{total:05d}.safetensors"
        write_whole(folder / name, partial(save_file, shard, metadata=_METADATA))
        weight_map |= dict.fromkeys(shard, name)
    if total > 1:
        size = sum(value.nbytes for value in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        write_json(folder / INDEX_FILE, index)


def replace_files(folder: Path, finished: Path, last: str) -> None:
    """Move the files of a finished checkpoint into a folder that may hold an earlier one.

    Weights of the earlier one that have no successor are removed: a reader would follow a left-over
    index to them.

    Args:
        folder: where the files go.
        finished: the folder to move them from, on the same file system.
        last: the name of the file that makes a checkpoint of the others. The earlier one goes away
            first and the new one comes last, so what a crash leaves in between is refused as
            incomplete rather than taken for a mixture.
    """
    files = {file.name: file for file in finished.iterdir()}
    (folder / last).unlink(missing_ok=True)
    for old in folder.iterdir():
        weights = _WEIGHT_FILES.fullmatch(old.name) or old.name == INDEX_FILE
        if weights and old.name not in files:
            old.unlink()
    for name in sorted(files, key=lambda name: name == last):
        files[name].replace(folder / name)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: the file is missing, not JSON or not an object.
    """
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{file}: file is missing", fix="a checkpoint is a folder with config.json"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}", fix="copy it again") from None
    if not isinstance(fields, dict):
        raise CheckpointError(
            f"{file}: holds a {type(fields).__name__}", fix="it must be a JSON object"
        )
    return fields


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole."""
    text = json.dumps(content, indent=2) + "\n"
    write_whole(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file, and rename it to `file` when it is complete."""
    temporary = file.with_name(f".{file.name}.partial")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777
        write(temporary)
        temporary.chmod(mode)  # safetensors makes its files private
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # else a power cut can leave the new name on no content
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def some(names: list[str], limit: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


_METADATA = {"format": "pt"}


def _headers(file: Path) -> list[StoredTensor]:
    if not file.is_file():
        raise CheckpointError(
            f"{file}: file is missing",
            fix="weights must be safetensors, whole or in shards; pickle is never read",
        )
    try:
        with safe_open(file, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
            tensors = [
                StoredTensor(name, file, tuple(part.get_shape()), part.get_dtype())
                for name, part in slices.items()
            ]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: not a valid safetensors file: {error}", fix="copy the file again"
        ) from None
    for tensor in tensors:
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(
                f"{file}: tensor {tensor.name} is of type {tensor.dtype}",
                fix=f"quantized weights are not read; one of {', '.join(_DTYPES)}",
            )
    return tensors


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
