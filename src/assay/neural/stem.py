"""The first and the last layers of the networks for sequences: steps or pieces in, vectors with a length; vectors out, one a row.

Every layer here keeps what lies behind a row's end at zero, so a padded row answers as it would alone.
"""

from __future__ import annotations

from typing import Any

KERNEL = 5


def strides_for(length: int, most: int) -> tuple[int, ...]:
    """Strides of the convolutions that shorten `length` steps to at most `most`; always at least one convolution."""
    strides: list[int] = []
    while length > most and len(strides) < 6:
        strides.append(2)
        length = -(-length // 2)
    return tuple(strides) or (1,)


def shortened(length: int, strides: tuple[int, ...]) -> int:
    for stride in strides:
        length = -(-length // stride)
    return length


def inside(x: Any, lengths: Any) -> Any:
    """1 within each row, 0 behind its end: float (b, t, 1) for x (b, t, ...)."""
    import torch

    return (torch.arange(x.shape[1], device=x.device)[None, :] < lengths[:, None]).to(torch.float32)[:, :, None]


def stem(sizes: dict[str, Any]) -> Any:
    """The first layer by sizes['reads']: a module (x, lengths) -> ((b, t, width) vectors, lengths).

    'steps': float (b, t, channels) through convolutions of 5 steps with sizes['strides'], each followed by a norm over the
    channels of a step (a norm over the batch would see the padding) and GELU. 'pieces': int64 (b, t), embedded.
    """
    import torch
    from torch import nn

    width = sizes["width"]

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [sizes["channels"]] + [width] * len(sizes["strides"])
            self.convolutions = nn.ModuleList(nn.Conv1d(one, two, KERNEL, stride=stride, padding=KERNEL // 2)
                                              for one, two, stride in zip(widths, widths[1:], sizes["strides"], strict=False))
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in sizes["strides"])

        def forward(self, x: Any, lengths: Any) -> tuple[Any, Any]:
            for convolution, norm, stride in zip(self.convolutions, self.norms, sizes["strides"], strict=True):
                x = norm(convolution(x.transpose(1, 2)).transpose(1, 2))
                lengths = torch.div(lengths + (stride - 1), stride, rounding_mode="floor")
                x = nn.functional.gelu(x) * inside(x, lengths)
            return x, lengths

    class Pieces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(sizes["vocabulary"], width, padding_idx=0)
            nn.init.normal_(self.embedding.weight, std=sizes.get("embedding_std", 0.1))
            with torch.no_grad():
                self.embedding.weight[0] = 0

        def forward(self, x: Any, lengths: Any) -> tuple[Any, Any]:
            return self.embedding(x), lengths

    return {"steps": Steps, "pieces": Pieces}[sizes["reads"]]()


def pooling(kind: str, width: int, last: bool) -> tuple[Any, int]:
    """(a module (x (b, t, width), lengths, last (b, width) or None) -> (b, its width), its width).

    kind: 'mean', 'max', 'last', 'attention' (a learnt weight for each step, Yang et al. 2016, doi:10.18653/v1/N16-1174) or 'concat':
    last, mean and max side by side (Howard & Ruder 2018, arXiv:1801.06146), without the last where there is none.
    """
    import torch
    from torch import nn

    parts = {"concat": (["last"] if last else []) + ["mean", "max"]}.get(kind, [kind])

    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score: Any = nn.Linear(width, 1) if "attention" in parts else None

        def forward(self, x: Any, lengths: Any, ending: Any) -> Any:
            here = inside(x, lengths)
            out = []
            for part in parts:
                if part == "last":
                    out.append(ending)
                elif part == "mean":
                    out.append((x * here).sum(1) / lengths[:, None].to(x.dtype))
                elif part == "max":
                    out.append((x - (1 - here) * 1e4).amax(1))
                else:
                    weights = torch.softmax(self.score(x) - (1 - here) * 1e4, dim=1)
                    out.append((x * weights).sum(1))
            return torch.cat(out, dim=1)

    return Pooling(), width * len(parts)
