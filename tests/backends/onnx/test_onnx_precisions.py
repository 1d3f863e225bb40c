"""``--dense int8 | int4`` and ``--cache int8`` on ONNX Runtime: what is stored, and its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch

from molkv_export import export, rounded_ladder
from molkv_export.backends.catalogue import choose_caches
from molkv_export.backends.onnx.quantization import BITS, BlockScheme
from molkv_export.backends.onnx.stored_weights import cache_scales, stored_tensors
from molkv_export.dense_graph import is_expert_table_tensor
from molkv_export.errors import ExportError
from molkv_export.graph_sizes import graph_sizes
from molkv_export.reference import ReferenceSession
from molkv_export.verify import verify
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.session import Session
from tests.small_models import small_config, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from molkv_runtime.manifest import DensePrecision
    from tests.conftest import BundleOf, CheckpointOf

# Every architecture, both precisions of the weights, both of the cache.
QUANTIZED = [
    ("molkv+tokenizer", "int4", "int8"),
    ("molkv-key-gelu-untied", "int8", "fp32"),
    ("mole", "int4", "fp32"),
    ("dense", "int8", "int8"),
    ("molkv", "fp32", "int8"),
]
IDS = np.random.default_rng(3).integers(0, 320, 96)
TABLE = "model.embed_tokens.weight"


def initializers(folder: Path) -> dict[str, onnx.TensorProto]:
    model = onnx.load(str(folder / "dense.onnx"), load_external_data=False)
    return {tensor.name: tensor for tensor in model.graph.initializer}


def place(tensor: onnx.TensorProto) -> str:
    """Where in the data file."""
    (offset,) = (entry.value for entry in tensor.external_data if entry.key == "offset")
    return str(offset)


def logits(folder: Path) -> NDArray[np.float32]:
    with Session(Bundle.open(folder), threads=1, chunk=17) as session:
        return session.logits(IDS)


@pytest.mark.parametrize(("kind", "dense", "cache"), QUANTIZED)
def test_quantized_graphs_climb_the_ladder_and_say_what_they_are(
    bundle_of: BundleOf, kind: str, dense: str, cache: str
) -> None:
    bundle = Bundle.open(bundle_of(kind, dense=dense, cache=cache))
    entry = bundle.manifest.backends["onnx"]
    assert (entry.dense, entry.cache) == (dense, cache)
    parity = bundle.manifest.parity
    assert parity is not None
    assert parity.passed, [rung for rung in parity.rungs if not rung.passed]
    names = [rung.name for rung in parity.rungs]
    assert "5 logits: max-abs to torch on the stored weights" in names
    assert "5 logits: KL divergence to torch on the stored weights" in names
    assert "6 greedy tokens: below the best logit" in names


@pytest.mark.parametrize("kind", ["molkv", "molkv-key-gelu-untied", "mole", "dense"])
@pytest.mark.parametrize("dense", BITS)
def test_every_matrix_but_a_router_is_stored_rounded_to_its_own_scale(
    checkpoint_of: CheckpointOf, kind: str, dense: DensePrecision
) -> None:
    checkpoint = Checkpoint(checkpoint_of(kind))
    scheme = BlockScheme.of(checkpoint.config, dense)
    stored = stored_tensors(checkpoint, dense)
    assert set(stored) == {
        name
        for name in checkpoint.names
        if checkpoint.tensor(name).ndim == 2
        and not is_expert_table_tensor(name)
        and not name.endswith("router.weight")
    }
    for name, tensor in stored.items():
        expected = checkpoint.tensor(name).numpy()
        pad = [(0, 0), (0, -expected.shape[1] % scheme.block)]
        blocks = np.pad(np.abs(expected), pad).reshape(len(expected), -1, scheme.block)
        # The largest weight has the code of the lowest number, so the highest is a step short.
        step = blocks.max(axis=-1) / 2 ** (scheme.bits - 1)
        most = np.repeat(step, scheme.block, axis=1)[:, : expected.shape[1]]
        error = np.abs(tensor.numpy() - expected)
        assert (error <= most * 1.01 + 1e-6).all(), name
        assert error.max() > 0, name


@pytest.mark.parametrize("dense", BITS)
def test_a_tied_head_and_its_table_are_the_same_bytes(
    bundle_of: BundleOf, checkpoint_of: CheckpointOf, dense: str
) -> None:
    folder = bundle_of("molkv", dense=dense)
    stored = initializers(folder)
    tables = [tensor for name, tensor in stored.items() if name.startswith(f"{TABLE}.codes")]
    assert len(tables) == 2
    assert len({place(tensor) for tensor in tables}) == 1
    assert len({tuple(tensor.dims) for tensor in tables}) == 2
    planned = graph_sizes(Checkpoint(checkpoint_of("molkv")), {"onnx": dense})["dense.onnx.data"]
    written = (folder / "dense.onnx.data").stat().st_size
    # Pages in between weigh much where weights are so few.
    assert abs(written - planned) <= 4096 * len(stored)


@pytest.mark.parametrize(("hidden", "blocks"), [(768, (128, 64)), (960, (64, 64)), (288, (32, 32))])
def test_blocks_are_as_large_as_the_hidden_size_allows(
    hidden: int, blocks: tuple[int, int]
) -> None:
    config = small_config("dense", hidden_size=hidden, num_attention_heads=6)
    assert tuple(BlockScheme.of(config, dense).block for dense in BITS) == blocks


def test_widths_without_whole_blocks_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "checkpoint",
        "dense",
        hidden_size=80,
        num_attention_heads=5,
        num_key_value_heads=5,
    )
    with pytest.raises(ExportError, match=r"hidden_size is 80, and dense int4 has blocks of at"):
        export(folder, tmp_path / "bundle", dense="int4")
    assert not (tmp_path / "bundle").exists()


def test_an_int8_cache_computes_what_torch_computes_with_rounded_keys_and_values(
    bundle_of: BundleOf, checkpoint_of: CheckpointOf
) -> None:
    folder = bundle_of("molkv", dense="fp32", cache="int8")
    checkpoint, bundle = Checkpoint(checkpoint_of("molkv")), Bundle.open(folder)
    scales = cache_scales(folder / "dense.onnx")
    rounded = ReferenceSession(checkpoint, bundle.open_experts(), cache_scales=scales)
    exact = ReferenceSession(checkpoint, bundle.open_experts())
    ours = logits(folder)
    error, cost = (np.abs(ours - session.run(IDS.tolist())).max() for session in (rounded, exact))
    assert error < cost / 3


def test_an_int8_cache_takes_a_quarter_of_the_memory(bundle_of: BundleOf) -> None:
    sizes = {}
    for cache in ("fp32", "int8"):
        folder = bundle_of("molkv", dense="fp32", cache=cache)
        with Session(Bundle.open(folder), threads=1) as session:
            graph: Any = session._graph
            sizes[cache] = sum(value.tensor_size_in_bytes() for value in graph._cache.values())
    assert sizes["fp32"] == 4 * sizes["int8"] > 0


def test_damaged_scales_of_the_cache_fail_the_ladder(
    bundle_of: BundleOf, checkpoint_of: CheckpointOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: scales that cut keys and values off at a fifth of their range."""
    bundle = Bundle.open(bundle_of("molkv", dense="fp32", cache="int8"))
    checkpoint = Checkpoint(checkpoint_of("molkv"))

    def fifth(file: Path) -> Any:
        scales = cache_scales(file)
        return type(scales)(scales.keys / 5, scales.values / 5)

    monkeypatch.setattr(rounded_ladder, "cache_scales", fifth)
    failed = {rung.name for rung in verify(bundle, checkpoint=checkpoint).rungs if not rung.passed}
    assert "5 logits: max-abs to torch on the stored weights" in failed
    assert "5 logits: KL divergence to torch on the stored weights" in failed


@pytest.mark.parametrize("name", ["self_attn.o_proj", "mlp.down_proj"])
def test_one_matrix_that_is_a_tenth_too_small_fails_the_ladder(
    bundle_of: BundleOf, checkpoint_of: CheckpointOf, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The control: torch on weights that are not quite those of the graph."""

    def smaller(*arguments: Any) -> dict[str, torch.Tensor]:
        tensors = genuine(*arguments)
        key = f"model.layers.0.{name}.weight"
        return tensors | {key: 0.9 * tensors[key]}

    genuine = rounded_ladder.stored_tensors
    monkeypatch.setattr(rounded_ladder, "stored_tensors", smaller)
    bundle = Bundle.open(bundle_of("molkv+tokenizer", dense="int4", cache="int8"))
    checkpoint = Checkpoint(checkpoint_of("molkv+tokenizer"))
    failed = {rung.name for rung in verify(bundle, checkpoint=checkpoint).rungs if not rung.passed}
    assert "5 logits: KL divergence to torch on the stored weights" in failed


def test_a_cache_precision_that_no_backend_has_is_refused() -> None:
    assert choose_caches(["onnx", "coreml"], "int8") == {"onnx": "int8", "coreml": "fp16"}
    assert choose_caches(["onnx", "executorch"], None) == {"onnx": "fp32", "executorch": "fp32"}
    with pytest.raises(ExportError, match="cache is 'int8', which no exported backend has"):
        choose_caches(["executorch", "coreml"], "int8")
