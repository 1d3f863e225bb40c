"""molkv_runtime.native binds molkv.h as it is, and a session runs on it unless told otherwise."""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

import molkv_runtime.native as native_package
from molkv_runtime import Bundle, SamplingConfig, Session
from molkv_runtime.blob import Blob
from molkv_runtime.errors import (
    BlobFormatError,
    BundleError,
    ContextLengthError,
    MolkvError,
    NativeLibraryError,
    RowCorruptError,
    TokenIdError,
    TokenizerError,
)
from molkv_runtime.expert_attention import expert_attention
from molkv_runtime.native import (
    BlobOptions,
    NativeAttention,
    NativeBlob,
    NativeTokenizer,
    NativeWindow,
    load_library,
    operator_library,
    structures,
)
from molkv_runtime.native.library import ABI_VERSION, NativeLibrary
from molkv_runtime.row_layout import LayerRows
from molkv_runtime.window import ExpertWindow
from tests.conftest import BundleOf

HEADER = Path(__file__).parents[2] / "native" / "include" / "molkv" / "molkv.h"
STRUCTURES = {
    "molkv_error": structures.Error,
    "molkv_geometry": structures.Geometry,
    "molkv_blob_options": structures.BlobOptions,
    "molkv_blob_info": structures.BlobInfo,
    "molkv_blob_stats": structures.BlobStats,
    "molkv_plane": structures.Plane,
    "molkv_attention_inputs": structures.AttentionInputs,
    "molkv_sampling": structures.Sampling,
}
ENUMERATIONS = {
    "molkv_status": (structures.Status, "MOLKV_"),
    "molkv_blob_mode": (structures.BlobMode, "MOLKV_"),
    "molkv_plane_kind": (structures.PlaneKind, "MOLKV_"),
    "molkv_kernel": (structures.Kernel, "MOLKV_KERNEL_"),
}
PROMPT = [5, 9, 5, 5, 9, 250, 319, 0, 17, 4, 4, 91]


def compiled_facts(folder: Path) -> dict[str, int]:
    """What a C compiler makes of the header: sizes, offsets and values by name."""
    questions = {f"sizeof({name})": f"sizeof({name})" for name in STRUCTURES}
    for name, structure in STRUCTURES.items():
        for field, *_ in structure._fields_:
            questions[f"{name}.{field}"] = f"offsetof({name}, {field})"
            questions[f"{name}.{field} size"] = f"sizeof((({name}*)0)->{field})"
    for enumeration, prefix in ENUMERATIONS.values():
        for member in enumeration:
            questions[prefix + member.name] = prefix + member.name
    questions["MOLKV_ABI_VERSION"] = "MOLKV_ABI_VERSION"
    lines = "".join(
        f'  printf("%s=%lld\\n", "{name}", (long long)({expression}));\n'
        for name, expression in questions.items()
    )
    source = folder / "facts.c"
    source.write_text(
        f'#include "molkv/molkv.h"\n#include <stdio.h>\nint main(void) {{\n{lines}  return 0;\n}}\n'
    )
    compiler = shutil.which("cc") or "gcc"
    include = HEADER.parents[1]
    subprocess.run(
        [compiler, "-std=c99", "-Wall", "-Werror", f"-I{include}", source, "-o", folder / "facts"],
        check=True,
    )
    printed = subprocess.run([folder / "facts"], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(.+)=(-?\d+)\n", printed)}


def test_every_structure_and_constant_is_what_a_c_compiler_sees(tmp_path: Path) -> None:
    facts = compiled_facts(tmp_path)
    assert facts["MOLKV_ABI_VERSION"] == ABI_VERSION
    for name, structure in STRUCTURES.items():
        assert facts[f"sizeof({name})"] == ctypes.sizeof(structure), name
        for field, *_ in structure._fields_:
            descriptor = getattr(structure, field)
            assert facts[f"{name}.{field}"] == descriptor.offset, (name, field)
            assert facts[f"{name}.{field} size"] == descriptor.size, (name, field)
    for enumeration, prefix in ENUMERATIONS.values():
        for member in enumeration:
            assert facts[prefix + member.name] == member, member


def test_no_structure_field_constant_or_function_of_the_header_is_left_out() -> None:
    text = re.sub(r"//.*", "", HEADER.read_text())
    for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\}", text, re.DOTALL):
        fields = re.findall(r"(\w+)(?:\[\d+\])?;", body)
        assert fields == [field for field, *_ in STRUCTURES[name]._fields_], name
    for name, body in re.findall(r"typedef enum (\w+) MOLKV_ENUM \{(.*?)\}", text, re.DOTALL):
        if name == "molkv_data_type":  # is row_geometry.DataType, which docs/format.md defines
            continue
        enumeration: type[enum.IntEnum]
        enumeration, prefix = ENUMERATIONS[name]
        assert len(re.findall(r"MOLKV_\w+ =", body)) == len(enumeration), name
        assert all(f"{prefix}{member.name} = {member}" in body for member in enumeration), name
    functions = set(re.findall(r"\bmolkv_(\w+)\(", text)) - {"abi_version"}
    assert functions == set(load_library()._functions)


def test_a_library_of_another_abi_version_is_refused(tmp_path: Path) -> None:
    source, file = tmp_path / "other.c", tmp_path / "libmolkv.so"
    source.write_text("unsigned molkv_abi_version(void) { return 99; }\n")
    compiler = shutil.which("cc") or "gcc"
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", file], check=True)
    with pytest.raises(NativeLibraryError, match=r"libmolkv.so: ABI version is 99, .* binds 1 \("):
        NativeLibrary(file)


def test_a_library_that_lacks_a_function_is_refused(tmp_path: Path) -> None:
    source, file = tmp_path / "other.c", tmp_path / "libmolkv.so"
    source.write_text(f"unsigned molkv_abi_version(void) {{ return {ABI_VERSION}; }}\n")
    compiler = shutil.which("cc") or "gcc"
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", file], check=True)
    with pytest.raises(NativeLibraryError, match=r"libmolkv.so: cannot be loaded: .*molkv_"):
        NativeLibrary(file)


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "libmolkv.so"
    file.write_text("not a library")
    with pytest.raises(NativeLibraryError, match=r"libmolkv.so: cannot be loaded"):
        NativeLibrary(file)


def test_without_its_library_a_session_says_so_and_takes_no_other_engine_unasked(
    bundle_of: BundleOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(bundle_of("molkv", "int8"))
    monkeypatch.setattr(native_package, "__path__", [str(tmp_path)])
    load_library.cache_clear()
    with pytest.raises(NativeLibraryError, match=r"libmolkv\.\w+ is missing \(.*reference engine"):
        Session(bundle, threads=1)
    with Session(bundle, engine="reference", threads=1) as session:
        assert len(session.prefill([1, 2])) == 320
    monkeypatch.undo()
    load_library.cache_clear()


@pytest.mark.parametrize("kind", ["molkv", "mole", "dense"])
@pytest.mark.parametrize("experts", ["int8", "int4", "f16"])
def test_both_engines_generate_the_same_tokens_and_read_the_same_rows(
    bundle_of: BundleOf, kind: str, experts: str
) -> None:
    bundle = Bundle.open(bundle_of(kind, experts))
    configs = [SamplingConfig(), SamplingConfig(temperature=1.2, top_k=50, top_p=0.9, seed=7)]
    found = {}
    for engine in ("native", "reference"):
        with Session(bundle, engine=engine, threads=1, chunk=5) as session:
            tokens = [
                list(session.generate(PROMPT, max_new_tokens=40, sampling=config, stop_ids=()))
                for config in configs
            ]
            stats = session.stats
            found[engine] = (tokens, stats.rows_read, stats.bytes_read, session.window_bytes)
            logits = session.logits(PROMPT)
        found[engine + " logits"] = logits
    assert found["native"] == found["reference"]
    np.testing.assert_allclose(found["native logits"], found["reference logits"], atol=2e-5)


def test_the_native_session_runs_the_native_kernel_and_the_reference_the_function_in_the_file(
    bundle_of: BundleOf, tmp_path: Path
) -> None:
    genuine = bundle_of("molkv", "int8")
    folder = tmp_path / "without-function"
    shutil.copytree(genuine, folder)
    model = onnx.load(folder / "dense.onnx", load_external_data=False)
    del model.functions[:]
    content = model.SerializeToString()
    (folder / "dense.onnx").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(entry for entry in manifest["files"] if entry["name"] == "dense.onnx")
    entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with (
        Session(Bundle.open(folder), threads=1) as without,
        Session(Bundle.open(genuine), threads=1) as whole,
    ):
        np.testing.assert_array_equal(without.logits(PROMPT), whole.logits(PROMPT))
    with pytest.raises(BundleError, match="ExpertAttention"):
        Session(Bundle.open(folder), engine="reference", threads=1)


@pytest.mark.parametrize(
    "options",
    [
        BlobOptions(),
        BlobOptions(readers=1, verify_rows=False),
        BlobOptions(readers=7, cache_bytes=1 << 20),
        BlobOptions(resident=True),
    ],
)
def test_rows_are_the_reference_readers_however_they_are_read(
    bundle_of: BundleOf, options: BlobOptions
) -> None:
    file = bundle_of("molkv", "int8") / "experts.molkv"
    with Blob.open(file) as reference, NativeBlob(file, options) as blob:
        assert (blob.geometry, blob.vocabulary_size, blob.identity, blob.row_stride) == (
            reference.geometry,
            reference.vocabulary_size,
            reference.identity,
            reference.layout.row_stride,
        )
        for ids in (PROMPT, [319], [], list(range(320))):
            expected, found = reference.read(ids), blob.read(ids)
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.index, expected.index)


def test_a_window_is_the_reference_window_through_slides_truncation_and_forks(
    bundle_of: BundleOf,
) -> None:
    file = bundle_of("molkv", "int8") / "experts.molkv"
    with Blob.open(file) as reference_blob, NativeBlob(file) as blob:
        reference = ExpertWindow(reference_blob.layout, 8, 5)
        window = NativeWindow(blob.geometry, 8, 5)
        assert window.nbytes == reference.nbytes
        for step in range(60):
            ids = [(37 * step + 5 * place) % 320 for place in range(1 + step % 5)]
            reference.append(reference_blob.read(ids))
            prefetch = blob.prefetch(ids)
            window.append(prefetch.wait(), blob.row_stride)
            prefetch.close()
            assert window.bounds == reference.bounds
            assert_same_planes(window.planes(), reference.planes())
            copy = window.fork()  # from every place that a window slides through
            assert_same_planes(copy.planes(), reference.planes())
        window.truncate(2)
        assert window.bounds == (reference.bounds[0], reference.bounds[1] - 2)
        assert_same_planes(copy.planes(), reference.planes())
        with pytest.raises(ContextLengthError):
            window.truncate(1000)
        window.reset()
        assert window.bounds == (0, 0)
        window.close()
        with pytest.raises(MolkvError, match="planes after close"):
            window.planes()


def assert_same_planes(found: list[LayerRows], expected: list[LayerRows]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("keys", "values", "key_scales", "value_scales"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_every_kernel_attends_as_numpy_does_and_wrong_shapes_are_refused() -> None:
    generator = np.random.default_rng(3)
    query = generator.normal(size=(3, 2, 8)).astype(np.float32)
    rows = LayerRows(
        keys=generator.integers(-127, 128, (9, 3, 16), dtype=np.int8),
        values=generator.integers(-127, 128, (9, 3, 32), dtype=np.int8),
        key_scales=generator.uniform(0.01, 0.02, (9, 3)).astype(np.float32),
        value_scales=generator.uniform(0.01, 0.02, (9, 3)).astype(np.float32),
    )
    age_bias = generator.normal(size=(2, 3, 6)).astype(np.float32)
    expected = expert_attention(query, rows, age_bias, 2)
    attention = NativeAttention()
    kernels = attention.kernels()
    assert structures.Kernel.SCALAR in kernels
    for kernel in (structures.Kernel.BEST, *kernels):
        ours = attention.attend(query, rows, age_bias, 2, kernel=kernel)
        np.testing.assert_allclose(ours, expected, atol=2e-6 * np.abs(expected).max())
    with pytest.raises(MolkvError, match=r"age_bias has the shape \[2, 4, 6\], expected \[2, 3"):
        attention.attend(query, rows, np.zeros((2, 4, 6), np.float32))
    assert {attention.name(kernel) for kernel in kernels} >= {"scalar"}


def test_errors_of_the_library_are_molkvs_own_and_keep_its_message(
    bundle_of: BundleOf, tmp_path: Path
) -> None:
    genuine = bundle_of("molkv", "int8") / "experts.molkv"
    content = bytearray(genuine.read_bytes())
    damaged = tmp_path / "experts.molkv"
    stride = Blob.open(genuine).layout.row_stride
    content[16384 + 7 * stride + 11] ^= 1
    damaged.write_bytes(content)
    with NativeBlob(damaged) as blob:
        with pytest.raises(RowCorruptError, match=r"experts.molkv: row of token id 7"):
            blob.read([1, 7])
        with pytest.raises(RowCorruptError, match=r"row of token id 7"):
            blob.prefetch([7]).wait()
        with pytest.raises(TokenIdError, match="320"):
            blob.read([320])
    with pytest.raises(MolkvError, match="read after close"):
        blob.read([1])
    damaged.write_bytes(content[:-1])
    with pytest.raises(BlobFormatError, match="file length"):
        NativeBlob(damaged)
    with pytest.raises(BlobFormatError, match="No such file"):
        NativeBlob(tmp_path / "none")
    with pytest.raises(MolkvError, match="readers is 65"):
        NativeBlob(genuine, BlobOptions(readers=65))
    with pytest.raises(MolkvError, match="row_stride is 576, but direct I/O needs"):
        NativeBlob(genuine, BlobOptions(direct_io=True))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        NativeTokenizer(tmp_path / "tokenizer.json")


def test_the_operator_library_lies_beside_the_core() -> None:
    assert operator_library().parent == load_library().file.parent
