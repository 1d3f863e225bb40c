"""Evaluates a saved ML program without Core ML, op by op in NumPy.

Core ML exists on Apple's systems only. On others this is what `molkv verify --backend coreml` runs:
it takes the ``.mlpackage`` as it was written, compressed weights, states and all, and computes each
op's documented meaning. Products, sums and exponentials are computed in float32 and every result is
rounded to its type, so a float16 program gives float16 results. Apple's compiler may fuse ops or
accumulate in float16; docs/ios.md says what is therefore not shown here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load as load_program
from coremltools.converters.mil.mil import types
from coremltools.models.utils import load_spec
from numpy.typing import NDArray

from molkv_export.backends.coreml.mil_ops import EVALUATED_OPS, MOVES
from molkv_runtime.errors import BundleError

__all__ = ["MilFunction", "MilProgram", "State"]

Array = NDArray[Any]
OnOp = Callable[[Any, dict[str, Any], list[Array]], None]
_COMPRESSED = ("quantized", "palettized")  # what coremltools appends to a compressed constant
State = dict[str, Array]
"""Content of the states, by name."""


class MilProgram:
    """A saved ML program.

    Args:
        package: an ``.mlpackage``.

    Raises:
        BundleError: it cannot be read, or has an op that is not evaluated here.
    """

    def __init__(self, package: Path) -> None:
        try:
            # Not `MLModel`: it writes into the package that it opens.
            (file,) = package.rglob("*.mlmodel")
            specification = load_spec(str(file))
            program = load_program(
                specification,
                specification_version=specification.specificationVersion,
                file_weights_dir=str(file.parent / "weights"),
            )
        except Exception as error:  # noqa: BLE001 - the library's errors share no other base
            raise BundleError(
                f"{package}: is no ML program that coremltools can read: {error}",
                fix="copy the bundle again",
            ) from None
        self.metadata: dict[str, str] = dict(specification.description.metadata.userDefined)
        shared: dict[str, Array] = {}
        self.functions = {
            name: MilFunction(function, package, shared)
            for name, function in program.functions.items()
        }

    def function(self, name: str) -> MilFunction:
        """A function by its name.

        Raises:
            KeyError: there is none.
        """
        return self.functions[name]


class MilFunction:
    """One function of a program; call `run` with a state that `make_state` made.

    Functions of one program that declare the same states can take turns on one state.

    Args:
        function: as coremltools loads it.
        package: the file's name, for messages.
        shared: constants of the program's other functions by name; those of this one are added.

    Raises:
        BundleError: it has an op that is not evaluated here.
    """

    def __init__(
        self,
        function: Any,
        package: Path | None = None,
        shared: dict[str, Array] | None = None,
    ) -> None:
        self._function = function
        self._shared = {} if shared is None else shared
        self._steps: list[_Step] = []
        self._constants: dict[Any, Array | None] = {}
        for op in function.operations:
            if op.op_type == "const":
                if not _only_decompressed(op.outputs[0]):
                    self._keep(op.outputs[0], op.outputs[0].val)
            elif op.op_type.startswith("constexpr_"):
                self._keep(op.outputs[0], op.materialized_val_inference())
            elif op.op_type in EVALUATED_OPS:
                self._steps.append(_Step.of(op))
            else:
                raise BundleError(
                    f"{package}: the op {op.op_type} is not evaluated here",
                    fix="verify on a Mac, or export with this version",
                )
        self.states = {
            name: (tuple(var.sym_type.wrapped_type().get_shape()))
            for name, var in function.inputs.items()
            if types.is_state(var.sym_type)
        }

    def _keep(self, var: Any, content: Any) -> None:
        """Hold a constant; functions share their weights, so they are held once."""
        value = _widened(content)
        known = self._shared.get(var.name)
        if known is not None and isinstance(value, np.ndarray) and np.array_equal(known, value):
            value = known
        elif isinstance(value, np.ndarray):
            self._shared[var.name] = value
        self._constants[var] = value

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs that are no states, by name."""
        return {
            name: tuple(var.shape)
            for name, var in self._function.inputs.items()
            if name not in self.states
        }

    def constant(self, name: str) -> Array:
        """A constant by its name, decompressed where it is compressed.

        Raises:
            KeyError: there is none.
        """
        names = {name, *(f"{name}_{suffix}" for suffix in _COMPRESSED)}
        for var, value in self._constants.items():
            if var.name in names and value is not None:
                return value
        raise KeyError(name)

    def make_state(self) -> State:
        """States as Core ML makes them: zeros, float16, held as float32 like every value here."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.states.items()}

    def run(
        self, inputs: Mapping[str, Array], state: State, on_op: OnOp | None = None
    ) -> dict[str, Array]:
        """One prediction.

        Args:
            inputs: every input by its name, with its shape.
            state: read, and written in place.
            on_op: told each op, its arguments and its results.

        Returns:
            the outputs by name.

        Raises:
            ValueError: an input is missing or has another shape.
        """
        values: dict[Any, Array | None] = dict(self._constants)
        for name, shape in self.inputs.items():
            if name not in inputs or inputs[name].shape != shape:
                found = inputs[name].shape if name in inputs else "missing"
                raise ValueError(f"input {name} is {found}, the function takes {shape}")
            var = self._function.inputs[name]
            values[var] = _rounded(inputs[name], var.dtype)
        for step in self._steps:
            step.run(values, state, on_op)
        return {var.name: _required(values[var]) for var in self._function.outputs}


@dataclass(frozen=True)
class _Step:
    """One op: its meaning, where its arguments come from, and what becomes of its results."""

    op: Any
    evaluate: Callable[..., Any]
    arguments: dict[str, Any]
    outputs: tuple[Any, ...]
    state: str | None

    @classmethod
    def of(cls, op: Any) -> _Step:
        arguments = dict(op.inputs)
        state = arguments.pop("state", None)
        if state is None and op.op_type in ("read_state", "write_state"):
            state = arguments.pop("input")
        name = None if state is None else state.name
        return cls(op, EVALUATED_OPS[op.op_type], arguments, tuple(op.outputs), name)

    def run(self, values: dict[Any, Array | None], state: State, on_op: OnOp | None) -> None:
        given = {name: _resolved(var, values) for name, var in self.arguments.items()}
        if self.state is not None:
            given["state"] = state[self.state]
        result = self.evaluate(**given)
        results = result if isinstance(result, list) else [result]
        if self.state is not None:
            state[self.state] = results[0]
        for var, value in zip(self.outputs, results, strict=bool(self.outputs)):
            values[var] = value if self.op.op_type in MOVES else _rounded(value, var.dtype)
        if on_op is not None:
            on_op(self.op, given, [_required(values[var]) for var in self.outputs])


def _only_decompressed(var: Any) -> bool:
    """Whether a constant is nothing but what another one is decompressed from."""
    users = var.child_ops
    return bool(users) and all(op.op_type.startswith("constexpr_") for op in users)


def _resolved(var: Any, values: Mapping[Any, Array | None]) -> Any:
    if isinstance(var, (list, tuple)):
        return [_resolved(part, values) for part in var]
    if var is None:
        return None
    return values[var] if var in values else _widened(var.val)


def _required(value: Array | None) -> Array:
    assert value is not None  # noqa: S101 - outputs are computed; for the type checker
    return value


def _widened(value: Any) -> Any:
    """float16 as float32, in which NumPy is fast; the numbers are the same."""
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype == np.float16:
        return np.asarray(value, np.float32)
    return value if isinstance(value, str) or value is None else np.asarray(value)


def _rounded(value: Array, dtype: Any) -> Array:
    """The value as its type holds it."""
    kind = types.nptype_from_builtin(dtype)
    if kind == np.float16:
        with np.errstate(over="ignore"):
            return np.asarray(value).astype(np.float16).astype(np.float32)
    return np.asarray(value).astype(kind, copy=False)
