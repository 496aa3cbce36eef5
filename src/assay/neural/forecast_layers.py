"""The layers of the networks that forecast: a frame which both share, and two bodies for it.

The frame (`forecaster`) scales a window by its own spread (RevIN, Kim et al. 2022, openreview cGDAkQo1C0p), starts from the seasonal naive answer, adds a line over
the window (DLinear, Zeng et al. 2023, arXiv:2205.13504), what the body says, and what the covariates of each step say. So an untaught network is the
seasonal naive with a spread, and whatever it learns is learnt beyond that.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

SPREAD = 1.25  # of the mean absolute step: the standard deviation of a normal one
CONTEXT = 16  # numbers of the body that each step's covariates are read with


def nhits(size: dict[str, Any]) -> Any:
    """N-HiTS (Challu et al. 2022, arXiv:2201.12886): each block sees the window pooled more coarsely, and says its part at fewer knots. Hidden layers: size['width']."""
    return _classes()["Frame"](size, _classes()["NHits"](size))


def patches(size: dict[str, Any]) -> Any:
    """Patches of the window as tokens (PatchTST, Nie et al. 2023, arXiv:2211.14730), mixed by lines over time and channels (TSMixer, Chen et al. 2023,
    arXiv:2303.06053) or, with size['mix'] 'attention', by attention."""
    return _classes()["Frame"](size, _classes()["Patches"](size))


def pools(length: int) -> tuple[int, ...]:
    """How coarsely the blocks see a window."""
    return tuple(k for k in (8, 4, 1) if k == 1 or length >= 8 * k)


def knots(horizon: int, season: int) -> tuple[int, ...]:
    """At how many points of the horizon the blocks say their part: the first a season apart, the last at every step."""
    apart = min(horizon, max(8, season))
    return (math.ceil(horizon / apart), math.ceil(horizon / max(2.0, apart**0.5)), horizon)


def spread_out(points: int, steps: int) -> np.ndarray:
    """(points, steps): the matrix of linear interpolation from evenly spaced points, constant where there is one."""
    if points == 1:
        return np.ones((1, steps), dtype=np.float32)
    at = np.linspace(0, points - 1, steps)
    return np.maximum(0, 1 - np.abs(at[None, :] - np.arange(points)[:, None])).astype(np.float32)


def _classes() -> dict[str, Any]:
    import torch
    from torch import nn

    class Frame(nn.Module):
        """x (b, length, past), z (b, horizon, ahead: how far, a season before, the mean of seasons, ...) -> (b, horizon * levels), in the units of the window."""

        def __init__(self, size: dict[str, Any], body: Any) -> None:
            super().__init__()
            self.horizon, levels = size["horizon"], size["levels"]
            self.body = body
            start = SPREAD * np.array([NormalDist().inv_cdf(level) for level in levels], dtype=np.float32)
            self.register_buffer("start", torch.from_numpy(start), persistent=False)
            self.line = nn.Linear(size["length"], size["horizon"])
            self.context = nn.Linear(body.wide, CONTEXT)
            last = nn.Linear(32, len(levels))
            self.step = nn.Sequential(nn.Linear(size["ahead"] + CONTEXT, 32), nn.GELU(), last)
            self.blend = nn.Linear(2, 1)
            for layer in (self.line, self.blend, last):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

        def forward(self, x: Any, z: Any) -> Any:
            value, there = x[:, :, 0], x[:, :, 1]
            spread = ((value * value * there).sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1.0) + 0.01).sqrt()
            value, before = value / spread, z[:, :, 1:3] / spread[:, :, None]
            z = torch.cat([z[:, :, :1], before, z[:, :, 3:]], dim=2)
            said, inner = self.body(value, x[:, :, 1:], torch.cat([z[:, 0], z.mean(dim=1)], dim=1))
            point = before[:, :, 0] + self.blend(before)[:, :, 0] + self.line(value)
            context = self.context(inner)[:, None, :].expand(-1, self.horizon, -1)
            said = said + point[:, :, None] + self.step(torch.cat([z, context], dim=2))
            return (said * spread[:, :, None] + self.start).flatten(1)

    class NHits(nn.Module):
        """One block a pooling; what a block explains of the window is taken away before the next one sees it."""

        def __init__(self, size: dict[str, Any]) -> None:
            super().__init__()
            length, width = size["length"], size["width"]
            self.pools, self.levels, self.horizon = pools(length), len(size["levels"]), size["horizon"]
            points = knots(size["horizon"], size["season"])[-len(self.pools) :]
            self.points, self.wide = points, width
            blocks, heads = [], []
            for i, (pool, said) in enumerate(zip(self.pools, points, strict=True)):
                seen = -(-length // pool)
                into = seen * size["past"] + 2 * size["ahead"]
                blocks.append(nn.Sequential(nn.Linear(into, width), nn.ReLU(), nn.Dropout(size["dropout"]), nn.Linear(width, width), nn.ReLU()))
                heads.append(nn.Linear(width, seen + said * self.levels))
                nn.init.normal_(heads[-1].weight, std=0.1 * width**-0.5)
                nn.init.zeros_(heads[-1].bias)
                self.register_buffer(f"back{i}", torch.from_numpy(spread_out(seen, length)), persistent=False)
                self.register_buffer(f"fore{i}", torch.from_numpy(spread_out(said, size["horizon"])), persistent=False)
            self.blocks, self.heads = nn.ModuleList(blocks), nn.ModuleList(heads)

        def forward(self, value: Any, other: Any, ahead: Any) -> Any:
            said, inner = 0.0, value
            for i, (pool, block, head) in enumerate(zip(self.pools, self.blocks, self.heads, strict=True)):
                short = (-value.shape[1]) % pool
                seen = value if not short else torch.cat([value[:, :1].expand(-1, short), value], dim=1)
                more = other.transpose(1, 2)
                more = more if not short else torch.cat([more[:, :, :1].expand(-1, -1, short), more], dim=2)
                if pool > 1:
                    seen = nn.functional.max_pool1d(seen[:, None], pool)[:, 0]
                    more = nn.functional.avg_pool1d(more, pool)
                inner = block(torch.cat([seen, more.flatten(1), ahead], dim=1))
                parts = head(inner)
                steps = seen.shape[1]
                value = value - parts[:, :steps] @ getattr(self, f"back{i}")
                knotted = parts[:, steps:].reshape(-1, self.levels, self.points[i])
                said = said + (knotted @ getattr(self, f"fore{i}")).transpose(1, 2)
            return said, inner

    class Mixing(nn.Module):
        """Over the patches, then over the channels; before each a norm, around each a way past."""

        def __init__(self, tokens: int, width: int, mix: str, dropout: float) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = nn.Linear(width, 3 * width) if mix == "attention" else None
            self.heads = max(1, width // 16)
            self.over = nn.Linear(width, width) if mix == "attention" else nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
            self.across = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width))
            self.drop = nn.Dropout(dropout)

        def forward(self, x: Any) -> Any:
            h = self.first(x)
            if self.attention is not None:
                b, n, d = h.shape
                q, k, v = self.attention(h).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
                share = (q @ k.transpose(2, 3) * (d // self.heads) ** -0.5).softmax(dim=3)
                h = self.over((share @ v).transpose(1, 2).reshape(b, n, d))
            else:
                h = self.over(h.transpose(1, 2)).transpose(1, 2)
            x = x + self.drop(h)
            return x + self.drop(self.across(self.second(x)))

    class Patches(nn.Module):
        def __init__(self, size: dict[str, Any]) -> None:
            super().__init__()
            length, width, patch = size["length"], size["width"], size["patch"]
            self.patch, self.levels, self.horizon, self.wide = patch, len(size["levels"]), size["horizon"], width
            tokens = -(-length // patch)
            self.short = tokens * patch - length
            self.into = nn.Linear(patch * size["past"], width)
            self.more = nn.Linear(2 * size["ahead"], width)
            self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
            self.blocks = nn.ModuleList([Mixing(tokens, width, size["mix"], size["dropout"]) for _ in range(size["depth"])])
            self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(size["dropout"])
            self.out = nn.Linear(tokens * width, size["horizon"] * self.levels)
            nn.init.normal_(self.out.weight, std=0.1 * (tokens * width) ** -0.5)
            nn.init.zeros_(self.out.bias)

        def forward(self, value: Any, other: Any, ahead: Any) -> Any:
            both = torch.cat([value[:, :, None], other], dim=2)
            if self.short:
                both = torch.cat([both[:, :1].expand(-1, self.short, -1), both], dim=1)
            b, n, c = both.shape
            x = self.into(both.reshape(b, n // self.patch, self.patch * c)) + self.place + self.more(ahead)[:, None]
            for block in self.blocks:
                x = block(x)
            x = self.norm(x)
            return self.out(self.drop(x.flatten(1))).reshape(-1, self.horizon, self.levels), x.mean(dim=1)

    return {"Frame": Frame, "NHits": NHits, "Patches": Patches}
