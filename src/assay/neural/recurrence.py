"""LSTM and GRU networks (Hochreiter & Schmidhuber 1997, Cho et al. 2014) that read rows of unequal length from both ends."""

from __future__ import annotations

from typing import Any

from assay.neural.stem import inside, pooling, stem

CELLS = ("lstm", "gru")


def recurrent(sizes: dict[str, Any]) -> Any:
    """A torch module (x, lengths int64 (b,)) -> (b, outputs).

    sizes: those of `stem`, and cell ('lstm', 'gru'), hidden (of one direction), depth, both (directions), pooling, dropout, outputs.
    The backward direction is a cell of its own that reads each row turned round within its length, because a padded row read
    from its end would begin with padding. Dropout hides the same channels at all steps (Gal & Ghahramani 2016, arXiv:1512.05287).
    """
    import torch
    from torch import nn

    hidden, both, drop = sizes["hidden"], sizes["both"], sizes["dropout"]
    wide = hidden * (2 if both else 1)
    cell = {"lstm": nn.LSTM, "gru": nn.GRU}[sizes["cell"]]

    def turned(x: Any, lengths: Any) -> Any:
        """Each row reversed within its length."""
        at = torch.arange(x.shape[1], device=x.device)[None, :]
        back = lengths[:, None] - 1 - at
        return x.gather(1, torch.where(back >= 0, back, at)[:, :, None].expand(-1, -1, x.shape[2]))

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = stem(sizes)
            inputs = [sizes["width"]] + [wide] * (sizes["depth"] - 1)
            self.forwards = nn.ModuleList(cell(n, hidden, batch_first=True) for n in inputs)
            self.backwards = nn.ModuleList(cell(n, hidden, batch_first=True) for n in inputs if both)
            self.pooling, n = pooling(sizes["pooling"], wide, last=True)
            self.norm = nn.LayerNorm(n)
            self.head = nn.Linear(n, sizes["outputs"])
            for name, weight in self.named_parameters():
                if "weight_hh" in name:
                    for part in weight.data.split(hidden):
                        nn.init.orthogonal_(part)
                elif "bias_ih" in name and sizes["cell"] == "lstm":
                    weight.data[hidden : 2 * hidden] = 1.0  # what was learnt is kept at first (Jozefowicz et al. 2015)

        def forward(self, x: Any, lengths: Any) -> Any:
            x, lengths = self.stem(x, lengths)
            for layer, ahead in enumerate(self.forwards):
                x = self.hidden_channels(x)
                states = [ahead(x)[0]]
                if both:
                    states.append(turned(self.backwards[layer](turned(x, lengths))[0], lengths))
                x = torch.cat(states, dim=2) * inside(x, lengths)
            end = (lengths - 1)[:, None, None].expand(-1, 1, hidden)
            ending = x[:, :, :hidden].gather(1, end)[:, 0]
            if both:
                ending = torch.cat([ending, x[:, 0, hidden:]], dim=1)
            said = self.norm(self.pooling(x, lengths, ending))
            return self.head(nn.functional.dropout(said, drop, self.training))

        def hidden_channels(self, x: Any) -> Any:
            if not self.training or not drop:
                return x
            kept = torch.rand(x.shape[0], 1, x.shape[2], device=x.device) >= drop
            return x * kept / (1 - drop)

    return Recurrent()
