"""A checkpoint is read whole and as written, or refused with the file and the tensor named."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from molkv_model import load, save
from molkv_model.checkpoint import Checkpoint
from molkv_model.errors import CheckpointError, ConfigError
from tests.model.small_models import ARCHITECTURES, random_ids, random_model, small

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UP = "model.layers.1.experts.up_proj"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A float32 checkpoint in one file."""
    save(random_model(small()), tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The same weights in several files."""
    save(random_model(small()), tmp_path / "sharded", shard_bytes=20_000)
    return tmp_path / "sharded"


def edit_weights(file: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


def edit_json(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def refusal(folder: Path, error: type[Exception] = CheckpointError) -> str:
    """The message with which the folder is refused; it has a fix, and no tensor was needed."""
    with pytest.raises(error) as raised:
        load(folder)
    assert raised.value.fix  # type: ignore[attr-defined]
    return str(raised.value)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_float32_model_comes_back_to_the_bit(
    architecture: str, tied: bool, tmp_path: Path
) -> None:
    model = random_model(small(architecture, tie_word_embeddings=tied))
    save(model, tmp_path / "new" / "folder")
    loaded = load(tmp_path / "new" / "folder")
    assert loaded.config == model.config
    assert not loaded.training
    ids = random_ids(model.config, 2, 9)
    assert torch.equal(loaded(ids), model(ids))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_checkpoint_is_the_rounded_model_in_float32(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = random_model(small())
    save(model, tmp_path, dtype=dtype)
    assert load_file(tmp_path / "model.safetensors")[UP].dtype == dtype
    for name, value in load(tmp_path).state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name].to(dtype).float()), name


def test_shards_hold_the_same_model_and_the_index_lists_them(folder: Path, sharded: Path) -> None:
    assert len(list(sharded.glob("model-*-of-*.safetensors"))) > 2
    assert not (sharded / "model.safetensors").exists()
    index = json.loads((sharded / INDEX).read_text())
    weights = load_file(folder / "model.safetensors")
    assert set(index["weight_map"]) == set(weights)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights.values())
    for name, value in load(folder).state_dict().items():
        assert torch.equal(load(sharded).state_dict()[name], value), name


@pytest.mark.parametrize("shard_bytes", [(1 << 30, 20_000), (20_000, 1 << 30), (20_000, 60_000)])
def test_saving_into_a_folder_replaces_the_weights_that_were_there(
    shard_bytes: tuple[int, int], tmp_path: Path
) -> None:
    old, new = random_model(small(), 1), random_model(small(), 2)
    (tmp_path / "other.safetensors").write_bytes(b"not ours")
    for model, limit in zip((old, new), shard_bytes, strict=True):
        save(model, tmp_path, shard_bytes=limit)
    assert torch.equal(load(tmp_path).state_dict()[UP], new.state_dict()[UP])
    left = {file.name for file in tmp_path.glob("*.safetensors")}
    weight_map = {"": "model.safetensors"}
    if shard_bytes[1] < 1 << 30:
        weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    assert left == set(weight_map.values()) | {"other.safetensors"}


def test_saving_leaves_no_temporary_file_and_no_private_one(sharded: Path) -> None:
    assert not [file.name for file in sharded.iterdir() if file.name.startswith(".")]
    modes = {file.stat().st_mode & 0o777 for file in sharded.iterdir()}
    (sharded / "plain").touch()
    assert modes == {(sharded / "plain").stat().st_mode & 0o777}


def test_an_interrupted_save_leaves_the_old_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Checkpoint(folder).identity()

    def full(_tensors: object, file: Path, **_: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("molkv_model.weight_files.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(random_model(small(), 9), folder)
    assert Checkpoint(folder).identity() == before
    assert not list(folder.glob(".*"))


def test_a_save_stopped_between_two_moves_leaves_no_mixture(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = random_model(small()), random_model(small(), 9)
    save(new, tmp_path / "new")
    expected = {Checkpoint(sharded).identity(), Checkpoint(tmp_path / "new").identity()}
    genuine, refused = pathlib.Path.replace, 0
    for allowed in range(6):
        save(old, sharded, shard_bytes=20_000)
        moves = 0

        def stopping(self: pathlib.Path, target: pathlib.Path, most: int = allowed) -> pathlib.Path:
            nonlocal moves
            moves += 1
            if moves > most:
                raise KeyboardInterrupt
            return genuine(self, target)

        monkeypatch.setattr(pathlib.Path, "replace", stopping)
        with contextlib.suppress(KeyboardInterrupt):
            save(new, sharded)
        monkeypatch.undo()
        try:
            assert Checkpoint(sharded).identity() in expected
        except CheckpointError as error:
            assert "config.json: file is missing" in str(error)  # noqa: PT017 - or it is whole
            refused += 1
    assert refused > 0


def test_weights_that_overflow_the_stored_dtype_are_not_saved(tmp_path: Path) -> None:
    model = random_model(small())
    model.state_dict()[UP][0, 0, 0] = 70_000.0
    with pytest.raises(CheckpointError, match=rf"{UP} holds NaN or infinity as torch\.float16"):
        save(model, tmp_path / "out", dtype=torch.float16)
    assert not (tmp_path / "out").exists()
    save(model, tmp_path / "out", dtype=torch.bfloat16)


def test_the_tokenizer_goes_along(tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text("{}")
    model = random_model(small())
    save(model, tmp_path / "with", tokenizer=tmp_path / "given.json")
    save(model, tmp_path / "with", tokenizer=tmp_path / "with" / "tokenizer.json")
    save(model, tmp_path / "without")
    assert Checkpoint(tmp_path / "with").tokenizer_file == tmp_path / "with" / "tokenizer.json"
    assert (tmp_path / "with" / "tokenizer.json").read_text() == "{}"
    assert Checkpoint(tmp_path / "without").tokenizer_file is None


def test_rows_are_the_slice(folder: Path, sharded: Path) -> None:
    name = "model.embed_tokens.weight"
    whole = Checkpoint(folder).tensor(name)
    for start, stop in ((0, 96), (0, 1), (17, 40), (95, 96), (5, 5)):
        for path in (folder, sharded):
            assert torch.equal(Checkpoint(path).rows(name, start, stop), whole[start:stop])


def test_size_and_names_are_known_without_reading_a_value(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    state = random_model(small()).state_dict()
    assert checkpoint.names == sorted(state)
    assert {name: checkpoint.size(name) for name in state} == {
        name: value.numel() for name, value in state.items()
    }


def test_the_identity_does_not_depend_on_the_sharding(folder: Path, sharded: Path) -> None:
    assert len(Checkpoint(folder).identity()) == 32
    assert Checkpoint(folder).identity() == Checkpoint(sharded).identity()


def test_the_identity_is_the_documented_hash(folder: Path) -> None:
    digest = hashlib.sha256()
    for name, value in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(f"{name} torch.float32 {list(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    assert Checkpoint(folder).identity() == digest.digest()


def test_the_identity_changes_with_any_one_weight(folder: Path) -> None:
    identities = {Checkpoint(folder).identity()}
    names = sorted(load_file(folder / "model.safetensors"))
    for name in names:
        edit_weights(
            folder / "model.safetensors",
            lambda tensors, name=name: tensors[name].view(-1)[-1:].neg_(),
        )
        identities.add(Checkpoint(folder).identity())
    assert len(identities) == len(names) + 1


def test_an_unknown_tensor_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    edit_weights(file, lambda tensors: tensors.update({"model.extra.weight": torch.ones(1)}))
    assert f"{file}: unknown tensor model.extra.weight" in refusal(folder)


def test_many_unknown_tensors_are_counted(folder: Path) -> None:
    more = {f"extra.{n}": torch.ones(1) for n in range(8)}
    edit_weights(folder / "model.safetensors", lambda tensors: tensors.update(more))
    assert "extra.0, extra.1, extra.2, extra.3, extra.4 and 3 more" in refusal(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit_weights(folder / "model.safetensors", lambda tensors: tensors.pop(UP))
    message = refusal(folder)
    assert str(folder) in message
    assert f"missing tensor {UP}" in message


def test_a_misshapen_tensor_is_named_with_both_shapes(folder: Path) -> None:
    file = folder / "model.safetensors"
    edit_weights(file, lambda tensors: tensors.update({UP: torch.ones(3, 32, 24)}))
    assert f"{file}: tensor {UP} has shape [3, 32, 24], config.json asks for [3, 24, 32]" in (
        refusal(folder)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused(value: float, folder: Path) -> None:
    file, name = folder / "model.safetensors", "model.embed_tokens.weight"
    edit_weights(file, lambda tensors: tensors[name][40].fill_(value))
    assert f"{file}: tensor {name} holds NaN or infinity" in refusal(folder)
    checkpoint = Checkpoint(folder)
    checkpoint.rows(name, 0, 40)
    with pytest.raises(CheckpointError, match=f"tensor {name} holds NaN"):
        checkpoint.rows(name, 30, 50)
    with pytest.raises(CheckpointError, match=f"tensor {name} holds NaN"):
        checkpoint.identity()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bool])
def test_a_tensor_that_is_no_float_is_refused(dtype: torch.dtype, folder: Path) -> None:
    file = folder / "model.safetensors"
    edit_weights(file, lambda tensors: tensors.update({UP: tensors[UP].to(dtype)}))
    message = refusal(folder)
    assert f"{file}: tensor {UP} is of type" in message
    assert "F32, F16, BF16" in message


def test_a_tensor_in_two_shards_is_named(sharded: Path) -> None:
    first, second = sorted(sharded.glob("model-*.safetensors"))[:2]
    name, value = next(iter(load_file(first).items()))
    edit_weights(second, lambda tensors: tensors.update({name: value}))
    assert f"{second}: tensor {name} is in {first.name} too" in refusal(sharded)


def test_an_index_that_puts_a_tensor_into_another_shard_is_refused(sharded: Path) -> None:
    shards = sorted(file.name for file in sharded.glob("model-*.safetensors"))
    wrong = {UP: next(name for name in shards if UP not in load_file(sharded / name))}
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update(wrong))
    assert f"{sharded / INDEX}: index and shards disagree about {UP}" in refusal(sharded)


def test_an_index_that_lists_a_tensor_too_many_or_too_few_is_refused(sharded: Path) -> None:
    shard = next(iter(sharded.glob("model-00001*"))).name
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update({"ghost": shard}))
    assert "disagree about ghost" in refusal(sharded)
    edit_json(sharded / INDEX, lambda index: index["weight_map"].pop("ghost"))
    edit_json(sharded / INDEX, lambda index: index["weight_map"].pop(UP))
    assert f"disagree about {UP}" in refusal(sharded)


@pytest.mark.parametrize(
    "name", ["../whole/model.safetensors", "/etc/hostname", "sub/model.safetensors", "", "."]
)
def test_a_shard_outside_the_folder_is_not_opened(name: str, folder: Path, sharded: Path) -> None:
    assert folder.is_dir()
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update({UP: name}))
    assert f"{sharded / INDEX}: {name} lies outside the folder" in refusal(sharded)


@pytest.mark.parametrize(
    "weight_map", [None, {}, [], {UP: 3}, {UP: ["model-00001-of-00002.safetensors"]}]
)
def test_a_malformed_index_is_refused(weight_map: object, sharded: Path) -> None:
    (sharded / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert f"{sharded / INDEX}: weight_map is missing or malformed" in refusal(sharded)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"{shard}: file is missing" in refusal(sharded)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_truncated_safetensors_file_is_named(kept: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert f"{file}: not a valid safetensors file" in refusal(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_pickled_weights_are_never_opened(name: str, folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (marker.touch, ())

    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Payload()))
    message = refusal(folder)
    assert str(folder / "model.safetensors") in message
    assert not marker.exists()
    if name != "model.safetensors":
        assert "pickle is never read" in message


def test_a_missing_config_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert f"{folder / 'config.json'}: file is missing" in refusal(folder)
    assert "config.json: file is missing" in refusal(folder / "nowhere")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"model_type: molkv", b"\xff\xfe", b"[" * 100_000, b"1" * 5000]
)
def test_a_config_that_is_not_json_is_named(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    assert f"{folder / 'config.json'}: cannot be read" in refusal(folder)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"molkv"'])
def test_a_config_that_is_no_object_is_named(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    assert f"{folder / 'config.json'}: holds a " in refusal(folder)


@pytest.mark.parametrize(
    ("name", "value"), [("rope_theta", float("nan")), ("num_experts", "3"), ("num_experts", 10**30)]
)
def test_an_invalid_config_is_named_with_the_field(name: str, value: object, folder: Path) -> None:
    edit_json(folder / "config.json", lambda fields: fields.update({name: value}))
    assert f"{folder / 'config.json'}: {name} is " in refusal(folder, ConfigError)


def test_the_largest_valid_config_is_refused_for_its_shapes_not_its_size(folder: Path) -> None:
    largest = dataclasses.replace(
        small(),
        vocab_size=2**31 - 1,
        hidden_size=2**17,
        intermediate_size=2**24,
        num_experts=4096,
        expert_intermediate_size=2**24,
        expert_query_heads=1024,
        expert_key_size=4096,
        expert_window=2**16,
    )
    (folder / "config.json").write_text(json.dumps(largest.to_json()))
    assert "has shape" in refusal(folder)


def test_a_model_that_neither_is_molkv_nor_published_mole_is_named(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 32}))
    message = refusal(folder, ConfigError)
    assert f"{folder / 'config.json'}: model_type is 'gpt2', expected 'molkv'" in message
