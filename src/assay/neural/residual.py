"""Small residual networks for pictures, spectrograms and sequences, and what they are built from.

Width and depth follow the time that is there. A stem that halves the sides at once makes each step cheap; blocks are those of ResNet (He et al. 2016, arXiv:1512.03385, arXiv:1603.05027), pooling and head as in airbench (Jordan 2024, arXiv:2404.00498).
"""

from __future__ import annotations

from typing import Any

SCALE = 1 / 9  # of the last layer: logits start small (Jordan 2024)


def network(*, channels: int, widths: tuple[int, ...], outputs: int, flat: bool, dropout: float, halved: int = 1, kernel: int = 3) -> Any:
    """A torch module: (b, channels, h, w) -> (b, outputs), or (b, channels, steps) for `flat`.

    widths: channels of each stage; every stage but the last halves the sides, and has one residual block of two convolutions. halved:
    so many times does the stem halve the sides before that, by strides of 2.
    """
    import torch
    from torch import nn

    conv, norm, pool = (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d) if flat else (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)

    class Block(nn.Module):
        """Convolution, halving, then two convolutions around which the input goes by."""

        def __init__(self, before: int, width: int, halves: bool) -> None:
            super().__init__()
            self.first, self.norm = conv(before, width, kernel, padding=kernel // 2, bias=False), norm(width)
            self.pool = pool(2, ceil_mode=True) if halves else nn.Identity()
            self.second, self.norm2 = conv(width, width, kernel, padding=kernel // 2, bias=False), norm(width)
            self.third, self.norm3 = conv(width, width, kernel, padding=kernel // 2, bias=False), norm(width)
            self.act = nn.GELU()
            nn.init.ones_(self.norm.weight)
            nn.init.zeros_(self.norm3.weight)  # the block starts as nothing: deep ones learn at once

        def forward(self, x: Any) -> Any:
            x = self.act(self.pool(self.norm(self.first(x))))  # the norm at once after the convolution, so that it can be folded into it
            return x + self.norm3(self.third(self.act(self.norm2(self.second(x)))))

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            stem: list[Any] = []
            for i in range(max(1, halved)):
                stem += [conv(widths[0] if i else channels, widths[0], kernel, stride=2 if halved else 1, padding=kernel // 2, bias=False), norm(widths[0]), nn.GELU()]
            self.stem = nn.Sequential(*stem)
            self.blocks = nn.ModuleList(Block(a, b, i + 1 < len(widths)) for i, (a, b) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True)))
            self.drop, self.head = nn.Dropout(dropout), nn.Linear(2 * widths[-1], outputs)
            nn.init.normal_(self.head.weight, std=widths[-1] ** -0.5 * SCALE)
            nn.init.zeros_(self.head.bias)

        def pairs(self) -> list[tuple[Any, Any, Any]]:
            """Inside each block the channels between its two convolutions meet nothing else: `prune.channels_pruned` cuts there."""
            return [(block.second, block.norm2, block.third) for block in self.blocks]

        def features(self, x: Any) -> Any:
            """The last stage's maps, (b, widths[-1], ...): what a heat map is drawn from."""
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return x

        def forward(self, x: Any) -> Any:
            return self.and_maps(x)[0]

        def and_maps(self, x: Any) -> tuple[Any, Any]:
            """What it says, and the last stage's maps."""
            maps = self.features(x)
            flat = maps.flatten(2)
            return self.head(self.drop(torch.cat([flat.mean(2), flat.amax(2)], dim=1))), maps

    return Residual()
