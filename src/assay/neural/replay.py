"""An ONNX network run once more by torch, so that gradients, and what its layers say to each other, can be had.

The file that answers is the only place where a served network is known: exporting folds weights together and renames them, so the network that
was taught cannot be built again from it. Its operators can be run one by one, whatever architecture they came from; autograd does the rest.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class Unknown(Exception):
    """Carries the operator that is not known here, or not in this form: those of quantised networks, for example."""


@dataclass(frozen=True)
class Node:
    kind: str
    inputs: tuple[str, ...]  # '' where an optional one is absent
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class Replay:
    """An opened network. nodes: in running order. inputs, output: names. constants: {name: tensor}, weights among them."""

    def __init__(self, model: bytes) -> None:
        """Raises Unknown."""
        import onnx
        import torch
        from onnx import helper, numpy_helper

        graph = onnx.load_model_from_string(model).graph
        self._known = operators()
        self.constants: dict[str, Any] = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in graph.initializer}
        self.nodes: list[Node] = []
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self.constants[node.output[0]] = torch.from_numpy(numpy_helper.to_array(attributes["value"]).copy())
                continue
            if node.op_type not in self._known:
                raise Unknown(node.op_type)
            self.nodes.append(Node(node.op_type, tuple(node.input), tuple(node.output), _plain(attributes)))
        self.inputs = [i.name for i in graph.input if i.name not in self.constants]
        self.output = graph.output[0].name
        self._last: dict[str, int] = {name: at for at, node in enumerate(self.nodes) for name in node.inputs}

    def run(self, given: dict[str, Any], also: Sequence[str] = ()) -> dict[str, Any]:
        """{name: tensor} of the output and of the values in `also`.

        given: {name: tensor} of the inputs; or of any value between them and the output, which is then not computed.
        Raises Unknown.
        """
        values = dict(given)
        kept = {self.output, *also}

        def value(name: str) -> Any:
            return None if not name else values[name] if name in values else self.constants[name]

        for at, node in enumerate(self.nodes):
            if node.outputs[0] in given:
                continue
            try:
                said = self._known[node.kind](node.attributes, *map(value, node.inputs))
            except (RuntimeError, TypeError, LookupError, ValueError) as error:  # whatever form of an operator somebody's exporter may write
                raise Unknown(node.kind) from error
            values.update(zip(node.outputs, said if isinstance(said, tuple) else (said,), strict=False))
            for name in node.inputs:  # what nobody asks for again need not be kept
                if self._last[name] == at and name not in kept:
                    values.pop(name, None)
        return {name: values[name] for name in kept}

    def embedding(self, ids: str) -> tuple[str, Any] | None:
        """(the name of the value, the table float (pieces, width)) where the input `ids` is looked up; None where it is not."""
        names = {ids}
        for node in self.nodes:
            if node.kind in ("Cast", "Identity") and node.inputs[0] in names:
                names.add(node.outputs[0])
            elif node.kind == "Gather" and node.inputs[1] in names and self._table(node.inputs[0]) is not None and not node.attributes.get("axis", 0):
                return node.outputs[0], self._table(node.inputs[0])
        return None

    def _table(self, name: str) -> Any:
        """Weights by name, through `Identity`: equal ones are kept once."""
        same = {node.outputs[0]: node.inputs[0] for node in self.nodes if node.kind == "Identity"}
        while name in same:
            name = same[name]
        found = self.constants.get(name)
        return found if found is not None and found.ndim == 2 and found.is_floating_point() else None


def opened(model: bytes) -> Replay | None:
    """The network, or None where torch or onnx is missing or one of its operators is not known here."""
    if any(importlib.util.find_spec(package) is None for package in ("torch", "onnx")):
        return None
    try:
        return Replay(model)
    except Unknown:
        return None


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    from onnx import TensorProto, numpy_helper

    return {name: value.decode() if isinstance(value, bytes) else numpy_helper.to_array(value).item() if isinstance(value, TensorProto) else value
            for name, value in attributes.items()}


def operators() -> dict[str, Callable[..., Any]]:
    """{ONNX operator, as of opset 17: (attributes, *inputs) -> tensor or tuple of tensors}: https://onnx.ai/onnx/operators/."""
    import torch
    from torch.nn import functional

    types = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64}
    plain: dict[str, Callable[..., Any]] = {
        "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Ceil": torch.ceil, "Cos": torch.cos, "Equal": torch.eq, "Erf": torch.erf, "Exp": torch.exp,
        "Floor": torch.floor, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Identity": lambda x: x, "IsNaN": torch.isnan, "Less": torch.lt,
        "LessOrEqual": torch.le, "Log": torch.log, "MatMul": torch.matmul, "Mul": torch.mul, "Neg": torch.neg, "Not": torch.logical_not, "Or": torch.logical_or,
        "Pow": torch.pow, "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sqrt": torch.sqrt,
        "Sub": torch.sub, "Tanh": torch.tanh, "Where": torch.where, "Xor": torch.logical_xor,
    }
    known: dict[str, Callable[..., Any]] = {kind: (lambda a, *x, _f=f: _f(*x)) for kind, f in plain.items()}

    def operator(made: Callable[..., Any]) -> Callable[..., Any]:
        known[made.__name__] = made
        return made

    known["Cast"] = lambda a, x: x.to(types[a["to"]])
    known["Concat"] = lambda a, *parts: torch.cat(parts, dim=a["axis"])
    known["ConstantOfShape"] = lambda a, shape: torch.full(shape.tolist(), a.get("value", 0.0))
    known["CumSum"] = lambda a, x, axis: x.cumsum(int(axis))
    known["Div"] = lambda a, x, y: x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")
    known["Dropout"] = lambda a, x, *rest: x
    known["Expand"] = lambda a, x, shape: x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))
    known["Flatten"] = lambda a, x: x.reshape(math.prod(x.shape[: a.get("axis", 1)]), -1)
    known["GatherElements"] = lambda a, x, at: x.gather(a.get("axis", 0), torch.where(at < 0, at + x.shape[a.get("axis", 0)], at))
    known["GlobalAveragePool"] = lambda a, x: x.mean(tuple(range(2, x.ndim)), keepdim=True)
    known["LayerNormalization"] = lambda a, x, w, b=None: functional.layer_norm(x, x.shape[a.get("axis", -1) :], w, b, a.get("epsilon", 1e-5))
    known["LeakyRelu"] = lambda a, x: functional.leaky_relu(x, a.get("alpha", 0.01))
    known["Mod"] = lambda a, x, y: torch.fmod(x, y) if a.get("fmod") else torch.remainder(x, y)
    known["BatchNormalization"] = lambda a, x, w, b, mean, var: functional.batch_norm(x, mean, var, w, b, eps=a.get("epsilon", 1e-5))
    known["Range"] = lambda a, first, last, step: torch.arange(first.item(), last.item(), step.item(), dtype=first.dtype)
    known["Shape"] = lambda a, x: torch.tensor(x.shape[a.get("start", 0) : a.get("end")], dtype=torch.int64)
    known["Softmax"] = lambda a, x: x.softmax(a.get("axis", -1))
    known["Tile"] = lambda a, x, times: x.repeat(*times.tolist())
    known["Transpose"] = lambda a, x: x.permute(*a.get("perm", tuple(reversed(range(x.ndim)))))
    known["Trilu"] = lambda a, x, k=None: (torch.triu if a.get("upper", 1) else torch.tril)(x, 0 if k is None else int(k))

    @operator
    def Clip(a: Any, x: Any, low: Any = None, high: Any = None) -> Any:
        return x if low is None and high is None else torch.clamp(x, low, high)

    @operator
    def Gather(a: Any, x: Any, at: Any) -> Any:
        axis = a.get("axis", 0) % x.ndim
        whole = torch.where(at < 0, at + x.shape[axis], at)
        return x.index_select(axis, whole.reshape(-1)).reshape((*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]))

    @operator
    def Gemm(a: Any, x: Any, y: Any, z: Any = None) -> Any:
        said = a.get("alpha", 1.0) * ((x.T if a.get("transA") else x) @ (y.T if a.get("transB") else y))
        return said if z is None else said + a.get("beta", 1.0) * z

    @operator
    def Reshape(a: Any, x: Any, shape: Any) -> Any:
        return x.reshape([x.shape[i] if n == 0 and not a.get("allowzero") else n for i, n in enumerate(shape.tolist())])

    @operator
    def Slice(a: Any, x: Any, first: Any, last: Any, axes: Any = None, steps: Any = None) -> Any:
        for i in range(len(first)):
            axis = int(axes[i]) if axes is not None else i
            at = range(x.shape[axis])[slice(int(first[i]), int(last[i]), 1 if steps is None else int(steps[i]))]
            x = x.narrow(axis, at.start, len(at)) if at.step == 1 and len(at) else x.index_select(axis, torch.tensor(list(at), dtype=torch.int64))
        return x

    @operator
    def Split(a: Any, x: Any, sizes: Any = None) -> Any:
        axis = a.get("axis", 0)
        return tuple(x.split(sizes.tolist() if sizes is not None else -(-x.shape[axis] // a["num_outputs"]), dim=axis))

    @operator
    def Squeeze(a: Any, x: Any, axes: Any = None) -> Any:
        return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))

    @operator
    def Unsqueeze(a: Any, x: Any, axes: Any) -> Any:
        whole = x.ndim + len(axes)
        for axis in sorted(int(n) % whole for n in axes):
            x = x.unsqueeze(axis)
        return x

    def reduced(how: Callable[..., Any]) -> Callable[..., Any]:
        def over(a: Any, x: Any, axes: Any = None) -> Any:
            chosen = tuple(axes.tolist()) if axes is not None else tuple(a.get("axes", ()))
            return how(x, dim=chosen or tuple(range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))

        return over

    known |= {"ReduceSum": reduced(torch.sum), "ReduceMean": reduced(torch.mean), "ReduceMax": reduced(torch.amax), "ReduceMin": reduced(torch.amin)}

    def padded(a: Any, x: Any, filled: float) -> Any:
        """Both sides of each axis after the second, as 'pads' says: all beginnings, then all ends."""
        if a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise LookupError(a["auto_pad"])
        pads, n = a.get("pads", [0] * 2 * (x.ndim - 2)), x.ndim - 2
        return functional.pad(x, [side for i in reversed(range(n)) for side in (pads[i], pads[n + i])], value=filled) if any(pads) else x

    @operator
    def Conv(a: Any, x: Any, weight: Any, bias: Any = None) -> Any:
        ones = [1] * (x.ndim - 2)
        how = {3: functional.conv1d, 4: functional.conv2d}[x.ndim]
        return how(padded(a, x, 0.0), weight, bias, stride=tuple(a.get("strides", ones)), dilation=tuple(a.get("dilations", ones)), groups=a.get("group", 1))

    @operator
    def MaxPool(a: Any, x: Any) -> Any:
        how, ones = {3: functional.max_pool1d, 4: functional.max_pool2d}[x.ndim], [1] * (x.ndim - 2)
        return how(padded(a, x, float("-inf")), tuple(a["kernel_shape"]), tuple(a.get("strides", ones)), 0, tuple(a.get("dilations", ones)), bool(a.get("ceil_mode", 0)))

    def gates(weights: Any, order: Sequence[int]) -> Any:
        """ONNX writes the gates of a cell in an order of its own."""
        parts = weights.chunk(len(order))
        return torch.cat([parts[i] for i in order])

    def cell(a: Any, x: Any, w: Any, r: Any, b: Any, lengths: Any, starts: tuple[Any, ...], order: Sequence[int], how: Callable[..., Any]) -> Any:
        if a.get("direction", "forward") != "forward" or lengths is not None:
            raise LookupError("a cell that reads backwards, or rows of lengths of its own")
        hidden = r.shape[-1]
        bias = [gates(part, order) for part in b[0].chunk(2)] if b is not None else []
        begin = [s if s is not None else x.new_zeros(1, x.shape[1], hidden) for s in starts]
        said, *ends = how(x, tuple(begin) if len(begin) > 1 else begin[0], [gates(w[0], order), gates(r[0], order), *bias], b is not None, 1, 0.0, False, False, False)
        return (said.unsqueeze(1), *ends)

    @operator
    def LSTM(a: Any, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None, c: Any = None) -> Any:
        return cell(a, x, w, r, b, lengths, (h, c), (0, 2, 3, 1), torch.lstm)  # input, output, forget, cell -> input, forget, cell, output

    @operator
    def GRU(a: Any, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None) -> Any:
        if not a.get("linear_before_reset"):
            raise LookupError("a GRU that resets before its matrix")
        return cell(a, x, w, r, b, lengths, (h,), (1, 0, 2), torch.gru)  # update, reset, new -> reset, update, new

    return known
