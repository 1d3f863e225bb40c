"""A small builder of ONNX graphs that writes weights to the external data file as it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["NAMESPACE_MICROSOFT", "NAMESPACE_MOLKV", "OPSET", "GraphBuilder"]

OPSET = 23
NAMESPACE_MICROSOFT = "com.microsoft"
NAMESPACE_MOLKV = "ai.molkv"
_IR_VERSION = 11
_EMBED_BELOW_BYTES = 1024
_ALIGNMENT = 4096


class GraphBuilder:
    """Nodes, inputs, outputs and weights of one graph.

    Weights of 1 KiB and more go straight into the data file, so a large model is never in memory
    twice; smaller constants stay in the graph, where shape inference needs them.

    Args:
        data_file: the external data file; the model file must end up beside it.
    """

    def __init__(self, data_file: Path) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._data_file = data_file
        self._data = data_file.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._data.close()

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Declare a graph output."""
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant under a name of its own; a name seen before is the same constant."""
        if name in self.initializers:
            return name
        array = np.ascontiguousarray(array)
        if array.nbytes < _EMBED_BELOW_BYTES:
            self.initializers[name] = numpy_helper.from_array(array, name)
            return name
        self._data.write(bytes(-self._data.tell() % _ALIGNMENT))
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        facts = {
            "location": self._data_file.name,
            "offset": self._data.tell(),
            "length": array.nbytes,
        }
        for key, value in facts.items():
            tensor.external_data.add(key=key, value=str(value))
        self._data.write(array.reshape(-1).view(np.uint8).data)
        self.initializers[name] = tensor
        return name

    def reshaped(self, name: str, shape: Sequence[int]) -> str:
        """A constant's bytes once more, in another shape; nothing is written again."""
        tensor = TensorProto()
        tensor.CopyFrom(self.initializers[name])
        tensor.name = f"{name}.{'x'.join(map(str, shape))}"
        del tensor.dims[:]
        tensor.dims.extend(shape)
        self.initializers[tensor.name] = tensor
        return tensor.name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        *,
        name: str,
        outputs: Sequence[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node; its first output, which is named like the node unless told otherwise."""
        outputs = [name] if outputs is None else outputs
        self.nodes.append(
            helper.make_node(operator, inputs, outputs, name=name, domain=domain, **attributes)
        )
        return outputs[0]

    def model(
        self,
        name: str,
        functions: Sequence[onnx.FunctionProto],
        operators: Mapping[str, int],
        metadata: dict[str, str],
    ) -> onnx.ModelProto:
        """The finished model.

        Args:
            name: the graph's.
            functions: model-local functions.
            operators: versions of the operator sets in use, by domain.
            metadata: becomes the model's metadata properties.
        """
        graph = helper.make_graph(
            self.nodes, name, self.inputs, self.outputs, list(self.initializers.values())
        )
        model: onnx.ModelProto = helper.make_model(
            graph,
            producer_name="molkv",
            ir_version=_IR_VERSION,
            functions=functions,
            opset_imports=[
                helper.make_opsetid(domain, version) for domain, version in operators.items()
            ],
        )
        helper.set_model_props(model, metadata)
        return model
