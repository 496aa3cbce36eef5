"""A transformer encoder (Vaswani et al. 2017, arXiv:1706.03762), pre-norm, small enough to be learnt from scratch on a processor."""

from __future__ import annotations

from typing import Any

from assay.neural.stem import inside, pooling, stem

HEAD = 32  # numbers of one attention head


def transformer(sizes: dict[str, Any]) -> Any:
    """A torch module (x, lengths int64 (b,)) -> (b, outputs), or (pictures,) -> (b, outputs) where sizes['reads'] is 'picture'.

    sizes: those of `stem`, and width, depth, wider (of the feed-forward part), dropout, path (stochastic depth of the last block,
    Huang et al. 2016, arXiv:1603.09382), outputs. Steps and pieces get rotary positions (Su et al. 2021, arXiv:2104.09864); the tokens
    of a picture a learnt vector each. All tokens are pooled by attention, as in CCT (Hassani et al. 2021, arXiv:2104.05704).
    """
    import torch
    from torch import nn

    width, drop = sizes["width"], sizes["dropout"]
    heads = max(1, width // HEAD)
    each = width // heads
    pictures = sizes["reads"] == "picture"

    def turned(x: Any, angles: Any) -> Any:
        """x: (b, heads, t, each); pairs of numbers turned by angles (t, each / 2)."""
        one, two = x[..., : each // 2], x[..., each // 2 :]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([one * cos - two * sin, one * sin + two * cos], dim=-1)

    class Block(nn.Module):
        def __init__(self, path: float) -> None:
            super().__init__()
            self.path = path
            self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.asks = nn.Linear(width, 3 * width)
            self.says = nn.Linear(width, width)
            self.wide = nn.Linear(width, sizes["wider"] * width)
            self.narrow = nn.Linear(sizes["wider"] * width, width)

        def forward(self, x: Any, hidden: Any, angles: Any) -> Any:
            q, k, v = self.asks(self.norm_1(x)).reshape(x.shape[0], -1, 3, heads, each).permute(2, 0, 3, 1, 4).unbind(0)
            if angles is not None:
                q, k, hidden = turned(q, angles), turned(k, angles), hidden.to(q.dtype)
            seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=hidden)  # no dropout of its own: the kernel that has it is half as fast
            x = x + self.sometimes(self.dropped(self.says(seen.transpose(1, 2).reshape(x.shape[0], -1, width))))
            return x + self.sometimes(self.dropped(self.narrow(nn.functional.gelu(self.wide(self.norm_2(x))))))

        def dropped(self, x: Any) -> Any:
            return nn.functional.dropout(x, drop, self.training)

        def sometimes(self, x: Any) -> Any:
            """Left out for some rows of a training batch."""
            if not self.training or not self.path:
                return x
            return x * (torch.rand(x.shape[0], 1, 1, device=x.device) >= self.path) / (1 - self.path)

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = patches(sizes) if pictures else stem(sizes | {"embedding_std": 0.02 if sizes["reads"] == "pieces" else 0.0})
            depth = sizes["depth"]
            self.blocks = nn.ModuleList(Block(sizes["path"] * i / max(1, depth - 1)) for i in range(depth))
            self.norm = nn.LayerNorm(width)
            self.pooling, n = pooling("attention", width, last=False)
            self.head = nn.Linear(n, sizes["outputs"])
            if pictures:
                self.places = nn.Parameter(torch.randn(1, sizes["tokens"], width) * 0.02)
            else:
                self.register_buffer("speeds", 10_000.0 ** (-torch.arange(0, each, 2, dtype=torch.float32) / each))
            for module in self.blocks.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02 * (192 / width) ** 0.5)
                    nn.init.zeros_(module.bias)

        def forward(self, x: Any, lengths: Any = None) -> Any:
            if pictures:
                x = self.stem(x) + self.places
                lengths, hidden, angles = torch.full_like(x[:, 0, 0], sizes["tokens"]).long(), None, None
            else:
                x, lengths = self.stem(x, lengths)
                hidden = ((inside(x, lengths) - 1) * 1e4).transpose(1, 2)[:, None]
                angles = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)[:, None] * self.get_buffer("speeds")
            x = nn.functional.dropout(x, drop, self.training)
            for block in self.blocks:
                x = block(x, hidden, angles)
            return self.head(nn.functional.dropout(self.pooling(self.norm(x), lengths, None), drop, self.training))

    return Transformer()


def patches(sizes: dict[str, Any]) -> Any:
    """Pictures (b, channels, side, side) -> (b, tokens, width) through convolutions, each halving the side (the tokenizer of CCT): overlapping
    patches, which see edges before there is anything to attend to."""
    from torch import nn

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[Any] = []
            depth = sizes["channels"]
            for i in range(sizes["halvings"]):
                out = sizes["width"] if i == sizes["halvings"] - 1 else max(32, sizes["width"] // 2)
                layers += [nn.Conv2d(depth, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
                depth = out
            self.layers = nn.Sequential(*layers)

        def forward(self, x: Any) -> Any:
            return self.layers(x).flatten(2).transpose(1, 2)

    return Patches()
