"""Convolutional networks over time: dilated residual blocks for sequences, a residual network over spectrograms for sound."""

from __future__ import annotations

from typing import Any

from assay.neural.stem import inside, pooling, stem

KERNEL = 5


def convolution(sizes: dict[str, Any]) -> Any:
    """A torch module (x, lengths int64 (b,)) -> (b, outputs).

    sizes: `planar` (x is a spectrogram (b, frames, bands), all of one length, and is seen as a picture), widths; or those of `stem`, width, depth,
    dropout; outputs. Blocks double their dilation, as in the temporal convolutional network of Bai et al. 2018 (arXiv:1803.01271), and
    keep what lies behind a row's end at zero.
    """
    return _planar(sizes) if sizes["planar"] else _steps(sizes)


def _planar(sizes: dict[str, Any]) -> Any:
    from torch import nn

    from assay.neural.residual import network

    class Spectrogram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network(channels=1, widths=tuple(sizes["widths"]), outputs=sizes["outputs"], flat=False, dropout=sizes["dropout"])

        def forward(self, x: Any, lengths: Any) -> Any:
            return self.body(x.unsqueeze(1)) + 0 * lengths[:, None].to(x.dtype)  # an input that is not used would be lost in the export

    return Spectrogram()


def _steps(sizes: dict[str, Any]) -> Any:
    from torch import nn

    width, drop = sizes["width"], sizes["dropout"]

    class Block(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.first = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2 * dilation, dilation=dilation)
            self.norm2 = nn.LayerNorm(width)
            self.second = nn.Conv1d(width, width, 1)

        def forward(self, x: Any, here: Any) -> Any:
            said = self.first((self.norm(x) * here).transpose(1, 2)).transpose(1, 2)
            said = nn.functional.gelu(self.norm2(said)).transpose(1, 2)
            return x + nn.functional.dropout(self.second(said).transpose(1, 2), drop, self.training) * here

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = stem(sizes)
            self.blocks = nn.ModuleList(Block(2**i) for i in range(sizes["depth"]))
            self.pooling, n = pooling("concat", width, last=False)
            self.norm, self.head = nn.LayerNorm(n), nn.Linear(n, sizes["outputs"])

        def forward(self, x: Any, lengths: Any) -> Any:
            x, lengths = self.stem(x, lengths)
            here = inside(x, lengths)
            for block in self.blocks:
                x = block(x, here)
            said = self.norm(self.pooling(x * here, lengths, None))
            return self.head(nn.functional.dropout(said, drop, self.training))

    return Steps()
