"""EfficientNet-Lite: a small network for pictures with ImageNet weights, as a torch module to teach and as an ONNX graph to answer.

Tan & Le 2019, EfficientNet, arXiv:1905.11946; the Lite kind (2020: no squeeze-excite, ReLU6, stem and head of fixed width) as in
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Names of the weights are those of the torch ports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.neural.onnx_graph import Graph

_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))  # repeats, kernel, stride, expansion, width
_SCALES = {"efficientnet-lite0": (1.0, 1.0), "efficientnet-lite1": (1.0, 1.1), "efficientnet-lite2": (1.1, 1.2), "efficientnet-lite3": (1.2, 1.4),
           "efficientnet-lite4": (1.4, 1.8)}  # width, depth
_STEM, _TOP, _EPSILON, _FLAT = 32, 1280, 1e-3, 1e-4
MEAN, SPREAD = 127.0, 128.0  # of a pixel 0-255, as it was trained


@dataclass(frozen=True)
class Block:
    before: int
    inner: int
    after: int
    kernel: int
    stride: int

    @property
    def skips(self) -> bool:
        return self.stride == 1 and self.before == self.after


def blocks_of(name: str) -> list[Block]:
    """The inverted residuals of one of `_SCALES`, first to last."""
    width, depth = _SCALES[name]
    out, before = [], _STEM
    for i, (repeats, kernel, stride, expansion, wide) in enumerate(_STAGES):
        after = _rounded(wide * width)
        for j in range(repeats if i in (0, len(_STAGES) - 1) else math.ceil(depth * repeats)):
            out.append(Block(before, before * expansion, after, kernel, stride if j == 0 else 1))
            before = after
    return out


def tail_of(name: str) -> int:
    """The first block of the tail, the last that halves the picture: above it lie 3/4 of the weights and a third of the arithmetic."""
    return max(i for i, block in enumerate(blocks_of(name)) if block.stride == 2)


def features_of(name: str) -> int:
    """Numbers a picture: the top's, and mean and spread over the picture of what enters the tail.

    The latter tell textures apart, in which the top finds no object: on 240 pictures of steel they took a line from 0.935 right to 0.98.
    """
    return _TOP + 2 * blocks_of(name)[tail_of(name)].before


def _rounded(width: float) -> int:
    near = max(8, int(width + 4) // 8 * 8)
    return near + 8 if near < 0.9 * width else near


def named(arrays: dict[str, np.ndarray]) -> str | None:
    """Which EfficientNet-Lite has weights of these names and shapes; None if none."""
    found = {name: array.shape for name, array in arrays.items() if not name.startswith("_fc.")}
    return next((name for name in _SCALES if found == _shapes(name)), None)


def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    out: dict[str, tuple[int, ...]] = {}

    def layer(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        out[f"{conv}.weight"] = shape
        out.update({f"{norm}.{part}": (shape[0],) for part in ("weight", "bias", "running_mean", "running_var")})
        out[f"{norm}.num_batches_tracked"] = ()

    layer("_conv_stem", "_bn0", (_STEM, 3, 3, 3))
    for i, block in enumerate(blocks_of(name)):
        for conv, norm, shape in _layers(block):
            layer(f"_blocks.{i}.{conv}", f"_blocks.{i}.{norm}", shape)
    layer("_conv_head", "_bn1", (_TOP, blocks_of(name)[-1].after, 1, 1))
    return out


def _layers(block: Block) -> list[tuple[str, str, tuple[int, ...]]]:
    """(convolution, its norm, shape of its weights) of a block, in running order."""
    widen = [] if block.inner == block.before else [("_expand_conv", "_bn0", (block.inner, block.before, 1, 1))]
    return [*widen, ("_depthwise_conv", "_bn1", (block.inner, 1, block.kernel, block.kernel)), ("_project_conv", "_bn2", (block.after, block.inner, 1, 1))]


# ---- torch


def network(name: str, arrays: dict[str, np.ndarray], *, side: int, outputs: int, pictures: int = 1, first: int = 0) -> Any:
    """A torch module with these weights: `pictures` times standardised pixels (b, 3, side, side) in, (b, outputs) out; its last layer says zero.

    first: blocks before this one are left out, and what goes in is what comes out of them (b, channels, h, w). Norms keep the
    statistics of ImageNet while it is taught: those of a batch of 32 of few pictures are worse.
    """
    import torch
    from torch import nn

    blocks, tail, wide = blocks_of(name), str(tail_of(name)), features_of(name)

    def convolved(before: int, after: int, kernel: int, stride: int, groups: int, size: int) -> Any:
        near, far = _padding(size, kernel, stride)
        conv = nn.Conv2d(before, after, kernel, stride, near if near == far else 0, groups=groups, bias=False)
        return conv if near == far else nn.Sequential(nn.ZeroPad2d((near, far, near, far)), conv)

    class Residual(nn.Module):
        def __init__(self, block: Block, size: int) -> None:
            super().__init__()
            self.skips, self.widens = block.skips, block.inner != block.before
            if self.widens:
                self._expand_conv, self._bn0 = convolved(block.before, block.inner, 1, 1, 1, size), nn.BatchNorm2d(block.inner, eps=_EPSILON)
            self._depthwise_conv, self._bn1 = convolved(block.inner, block.inner, block.kernel, block.stride, block.inner, size), nn.BatchNorm2d(block.inner, eps=_EPSILON)
            self._project_conv, self._bn2 = convolved(block.inner, block.after, 1, 1, 1, size), nn.BatchNorm2d(block.after, eps=_EPSILON)

        def forward(self, x: Any) -> Any:
            out = nn.functional.hardtanh(self._bn0(self._expand_conv(x)), 0.0, 6.0) if self.widens else x
            out = nn.functional.hardtanh(self._bn1(self._depthwise_conv(out)), 0.0, 6.0)
            out = self._bn2(self._project_conv(out))
            return x + out if self.skips else out

    class Lite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if not first:
                self._conv_stem, self._bn0 = convolved(3, _STEM, 3, 2, 1, side), nn.BatchNorm2d(_STEM, eps=_EPSILON)
            size, kept = -(-side // 2), {}
            for i, block in enumerate(blocks):
                if i >= first:
                    kept[str(i)] = Residual(block, size)
                size = -(-size // block.stride)
            self._blocks = nn.ModuleDict(kept)
            self._conv_head, self._bn1 = nn.Conv2d(blocks[-1].after, _TOP, 1, bias=False), nn.BatchNorm2d(_TOP, eps=_EPSILON)
            self._fc = nn.Linear(wide * pictures, outputs)

        def features(self, x: Any) -> Any:
            """(b, features_of(name)) of one picture a row."""
            x = x.contiguous(memory_format=torch.channels_last)  # a step is a quarter shorter so, on a processor
            if not first:
                x = nn.functional.hardtanh(self._bn0(self._conv_stem(x)), 0.0, 6.0)
            middle: tuple[Any, ...] = ()
            for key, block in self._blocks.items():
                if key == tail:
                    middle = (x.mean((2, 3)), (x.var((2, 3), correction=0) + _FLAT).sqrt())
                x = block(x)
            return torch.cat([nn.functional.hardtanh(self._bn1(self._conv_head(x)), 0.0, 6.0).mean((2, 3)), *middle], dim=1)

        def forward(self, *pictures: Any) -> Any:
            return self._fc(torch.cat([self.features(x) for x in pictures], dim=1))  # no dropout: a last layer that comes from a probe leans on every feature

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            return self

        def groups(self) -> list[list[Any]]:
            """Parameters from the first layer to the last: the stem, stretches of blocks of one width, the head."""
            out = [] if first else [[*self._conv_stem.parameters(), *self._bn0.parameters()]]
            width = -1
            for key, block in self._blocks.items():
                if blocks[int(key)].after != width:
                    out.append([])
                    width = blocks[int(key)].after
                out[-1] += list(block.parameters())
            return [*out, [*self._conv_head.parameters(), *self._bn1.parameters()], list(self._fc.parameters())]

    made: Any = Lite()
    own = {_bare(k): k for k in made.state_dict() if not k.startswith("_fc.")}
    made.load_state_dict({k: torch.from_numpy(np.array(arrays[bare])) for bare, k in own.items()}, strict=False)
    with torch.no_grad():
        made._fc.weight.zero_()
        made._fc.bias.zero_()
    return made.eval().to(memory_format=torch.channels_last)


def arrays_of(taught: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights of a network that was taught, over those that it was made of, under the names of the port."""
    own = {_bare(name): tensor.detach().cpu().numpy().copy() for name, tensor in taught.state_dict().items()}
    return {name: array for name, array in arrays.items() if not name.startswith("_fc.")} | own


def _bare(name: str) -> str:
    """A padded convolution lies one module deeper here than in the port."""
    return name.replace("_conv.1.weight", "_conv.weight").replace("_conv_stem.1.weight", "_conv_stem.weight")


# ---- ONNX


def graph(name: str, arrays: dict[str, np.ndarray], *, side: int, until: int | None = None) -> bytes:
    """The network for pictures of one size as an ONNX file: `pixels` float32 (n, side, side, 3), 0-255, in; float32 (n, features_of(name)) out.

    until: what comes out of the blocks before this one instead, float32 (n, channels, h, w). Norms are folded into the convolutions.
    No torch is needed, and it is written in 0.1 s.
    """
    made = Graph()
    low, high = made.weight(np.array(0.0, dtype=np.float32)), made.weight(np.array(6.0, dtype=np.float32))
    mean, share = made.weight(np.array(MEAN, dtype=np.float32)), made.weight(np.array(1 / SPREAD, dtype=np.float32))
    x = made.add("Transpose", made.input("pixels", "float32", ("n", side, side, 3)), perm=[0, 3, 1, 2])
    x = made.add("Mul", made.add("Sub", x, mean), share)

    def layer(x: str, conv: str, norm: str, size: int, kernel: int = 1, stride: int = 1, groups: int = 1, bound: bool = True) -> str:
        scale = arrays[f"{norm}.weight"] / np.sqrt(arrays[f"{norm}.running_var"] + _EPSILON)
        weight = arrays[f"{conv}.weight"] * scale[:, None, None, None]
        shift = arrays[f"{norm}.bias"] - arrays[f"{norm}.running_mean"] * scale
        near, far = _padding(size, kernel, stride)
        out = made.add("Conv", x, made.weight(weight.astype(np.float32)), made.weight(shift.astype(np.float32)), kernel_shape=[kernel, kernel],
                       strides=[stride, stride], pads=[near, near, far, far], group=groups)
        return made.add("Clip", out, low, high) if bound else out

    size, blocks = side, blocks_of(name)
    x, size = layer(x, "_conv_stem", "_bn0", size, 3, 2), -(-size // 2)
    middle: list[str] = []
    for i, block in enumerate(blocks if until is None else blocks[:until]):
        before, own = x, f"_blocks.{i}."
        if i == tail_of(name):
            mean_of = made.add("GlobalAveragePool", x)
            apart = made.add("Sub", x, mean_of)
            spread = made.add("Add", made.add("GlobalAveragePool", made.add("Mul", apart, apart)), made.weight(np.array(_FLAT, dtype=np.float32)))
            middle = [made.add("Flatten", part, axis=1) for part in (mean_of, made.add("Sqrt", spread))]
        if block.inner != block.before:
            x = layer(x, own + "_expand_conv", own + "_bn0", size)
        x = layer(x, own + "_depthwise_conv", own + "_bn1", size, block.kernel, block.stride, block.inner)
        size = -(-size // block.stride)
        x = layer(x, own + "_project_conv", own + "_bn2", size, bound=False)
        if block.skips:
            x = made.add("Add", x, before)
    if until is not None:
        return made.bytes(x, ("n", blocks[until - 1].after, size, size))
    x = made.add("Flatten", made.add("GlobalAveragePool", layer(x, "_conv_head", "_bn1", size)), axis=1)
    return made.bytes(made.add("Concat", x, *middle, axis=1), ("n", features_of(name)))


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, as TensorFlow's 'SAME' lays them: the odd one after."""
    whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return whole // 2, whole - whole // 2
