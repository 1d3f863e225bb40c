"""The evaluator's ops mean what MIL says they mean, and what it cannot judge it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb  # noqa: N813 - MIL's own name for it
from coremltools.converters.mil.mil import Function, types
from coremltools.converters.mil.mil.types.type_mapping import numpy_val_to_builtin_val

from molkv_export.backends.coreml.mil_evaluator import MilFunction, MilProgram
from molkv_export.backends.coreml.mil_ops import EVALUATED_OPS
from molkv_export.backends.coreml.package import DECODE, PREFILL
from molkv_export.backends.coreml.target import OPSET
from molkv_runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.backends.coreml.conftest import PackageOf

# coremltools cannot compute these itself; what they do is checked by hand below.
WITHOUT_INFERENCE = {
    *("coreml_update_state", "read_state", "slice_update", "write_state"),
    *("gelu", "reduce_max", "reduce_mean", "silu", "softmax"),
}


def built(build: Callable[..., Any], *shapes: tuple[int, ...], dtype: Any = types.fp16) -> Any:
    specs = {f"x{n}": mb.TensorSpec(shape, dtype=dtype) for n, shape in enumerate(shapes)}
    with Function(specs, opset_version=OPSET) as function:
        function.set_outputs([build(*function.inputs.values())])
    return MilFunction(function)


def own_inference(op: Any, given: dict[str, Any]) -> Any:
    """What coremltools computes for an op whose inputs are constants; None where it cannot."""
    if "state" in given:
        return None
    held = []
    try:
        for name, value in given.items():
            var = op.inputs[name]
            several = isinstance(var, (list, tuple))
            for part, number in zip(
                var if several else [var],
                value if several else [value],
                strict=True,
            ):
                if part is None or (part.op is not None and part.op.op_type == "const"):
                    continue
                held.append((part, part._sym_val))
                exact = number.astype(types.nptype_from_builtin(part.dtype))
                part._sym_val = numpy_val_to_builtin_val(exact)[0]
        return op.value_inference()
    except (NotImplementedError, TypeError):
        return None  # TypeError: reductions hand NumPy's own bool to NumPy, which refuses it
    finally:
        for part, before in held:
            part._sym_val = before


@pytest.mark.parametrize("function", [PREFILL, DECODE])
def test_every_op_computes_what_coremltools_computes_for_constants(
    package_of: PackageOf, function: str
) -> None:
    program = MilProgram(package_of("molkv", "fp16")).function(function)
    random, compared, unknown = np.random.default_rng(3), set(), set()

    def compare(op: Any, given: dict[str, Any], results: list[Any]) -> None:
        expected = own_inference(op, given)
        if expected is None:
            unknown.add(op.op_type)
            return
        expected = expected if isinstance(expected, (list, tuple)) else [expected]
        for ours, theirs in zip(results, expected, strict=True):
            theirs = np.asarray(theirs, np.float64)
            scale = max(1.0, float(np.abs(theirs).max()))
            # coremltools sums in float16 where the evaluator sums in float32.
            assert np.abs(ours - theirs).max() <= 8e-3 * scale, op.op_type
        compared.add(op.op_type)

    feeds = {}
    for name, shape in program.inputs.items():
        feeds[name] = random.standard_normal(shape).astype(np.float16)
    feeds["input_ids"] = random.integers(0, 320, program.inputs["input_ids"]).astype(np.int32)
    feeds["position"] = np.array([9], np.int32)
    feeds["logits_index"] = np.array([6], np.int32)
    program.run(feeds, program.make_state(), compare)
    assert len(compared) >= 20
    assert unknown <= WITHOUT_INFERENCE


def test_every_op_of_the_table_is_used_by_some_program(package_of: PackageOf) -> None:
    """Nothing is evaluated that nobody needs; `slice_by_index` comes from no decoder of ours."""
    used = set()
    for kind in ("molkv", "molkv-key-gelu-untied", "mole"):
        for function in MilProgram(package_of(kind, "fp16")).functions.values():
            used |= {step.op.op_type for step in function._steps}
    assert used <= set(EVALUATED_OPS)


@pytest.mark.parametrize(
    ("build", "shape", "expected"),
    [
        (lambda x: mb.gelu(x=x, mode="EXACT"), (3,), [-0.1587, 0.0, 1.9545]),
        (lambda x: mb.silu(x=x), (3,), [-0.2689, 0.0, 1.7616]),
        (lambda x: mb.softmax(x=x, axis=-1), (3,), [0.0420, 0.1142, 0.8438]),
        (lambda x: mb.reduce_max(x=x, axes=[-1], keep_dims=True), (3,), [2.0]),
        (lambda x: mb.reduce_mean(x=x, axes=[-1], keep_dims=True), (3,), [0.3333]),
    ],
)
def test_ops_match_values_worked_out_by_hand(
    build: Callable[..., Any], shape: tuple[int, ...], expected: list[float]
) -> None:
    function = built(build, shape)
    (output,) = function.run({"x0": np.array([-1.0, 0.0, 2.0])}, {}).values()
    np.testing.assert_allclose(output, expected, atol=1e-3)


def test_results_are_rounded_to_float16() -> None:
    function = built(lambda x: mb.add(x=x, y=np.float16(1)), (2,))
    (output,) = function.run({"x0": np.array([2.0**-12, 70000.0])}, {}).values()
    assert output.tolist() == [1.0, np.inf]


def test_a_state_is_written_where_the_slice_says() -> None:
    specs: dict[str, Any] = {
        "begin": mb.TensorSpec((2,), dtype=types.int32),
        "end": mb.TensorSpec((2,), dtype=types.int32),
        "kept": mb.StateTensorSpec((3, 4), dtype=types.fp16),
    }
    with Function(specs, opset_version=OPSET) as function:
        given = function.inputs
        before = mb.read_state(input=given["kept"])
        rows = np.full((1, 4), 7, np.float16)
        after = mb.slice_update(x=before, update=rows, begin=given["begin"], end=given["end"])
        now = mb.coreml_update_state(state=given["kept"], value=after)
        function.set_outputs([mb.add(x=now, y=np.float16(1))])
    evaluated = MilFunction(function)
    state = evaluated.make_state()
    place = {"begin": np.array([1, 0], np.int32), "end": np.array([2, 4], np.int32)}
    (output,) = evaluated.run(place, state).values()
    assert state["kept"].tolist() == [[0] * 4, [7] * 4, [0] * 4]
    assert output[1].tolist() == [8] * 4
    outside = {"begin": np.array([3, 0], np.int32), "end": np.array([4, 4], np.int32)}
    with pytest.raises(ValueError, match="slice 3:4 of an axis of 3"):
        evaluated.run(outside, state)


def test_inputs_of_other_shapes_are_refused() -> None:
    function = built(lambda x: mb.abs(x=x), (2,))
    with pytest.raises(ValueError, match=r"input x0 is \(3,\), the function takes \(2,\)"):
        function.run({"x0": np.zeros(3)}, {})
    with pytest.raises(ValueError, match="input x0 is missing"):
        function.run({}, {})


def test_an_op_without_a_meaning_here_is_refused_before_anything_runs() -> None:
    with pytest.raises(BundleError, match="the op erf is not evaluated here"):
        built(lambda x: mb.erf(x=x), (2,))


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dense.mlpackage").mkdir()
    with pytest.raises(BundleError, match="is no ML program that coremltools can read"):
        MilProgram(tmp_path / "dense.mlpackage")


def test_loading_a_package_writes_nothing_into_it(package_of: PackageOf) -> None:
    """A library function that opens packages does, and a bundle's files have checksums."""
    package = package_of("molkv", "fp16")
    before = {path: path.stat().st_mtime_ns for path in package.rglob("*")}
    MilProgram(package)
    assert {path: path.stat().st_mtime_ns for path in package.rglob("*")} == before
