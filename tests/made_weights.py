"""Weights of TabPFN and TabICL for tests: the true architectures, tiny. Random ones answer somehow; `taught` ones predict.

No published weights can be shipped here. `taught` trains a tiny network for a minute or two on made-up tables, the way the
real ones were made (Müller et al. 2022, arXiv:2112.10510), so that a test can ask whether the answers are any good.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

TINY_ICL = {"embed_dim": 16, "col_num_blocks": 1, "col_nhead": 2, "col_num_inds": 8, "row_num_blocks": 1, "row_nhead": 2, "row_num_cls": 2,
            "icl_num_blocks": 2, "icl_nhead": 2, "zero_init": False, "row_rope_interleaved": False, "num_quantiles": 99}
TINY_PFN = {"tabpfn_v2": {"emsize": 12, "nlayers": 2, "nhead": 2},
            "tabpfn_v2_5": {"emsize": 12, "nlayers": 2, "nhead": 2, "num_thinking_rows": 4}}
_TINY_3 = {"embed_dim": 16, "dist_embed_num_blocks": 1, "dist_embed_num_heads": 2, "dist_embed_num_inducing_points": 8, "feat_agg_num_blocks": 1,
           "feat_agg_num_heads": 2, "feat_agg_num_cls_tokens": 2, "nlayers": 2, "icl_num_heads": 2, "decoder_head_dim": 8, "decoder_num_heads": 2}
TINY_PFN |= {"tabpfn_v3": _TINY_3, "tabpfn_v3_5": _TINY_3 | {"icl_num_kv_heads_test": 1}}


def tabicl(path: Path, *, classes: int, **config) -> Path:
    """A random TabICL; classes 0: a regressor."""
    import torch
    from tabicl._model.tabicl import TabICL

    torch.manual_seed(0)
    config = {"max_classes": classes, **TINY_ICL, **config}
    torch.save({"config": config, "state_dict": TabICL(**config).state_dict()}, path)
    return path


def tabpfn(path: Path, architecture: str, *, classes: int, bars: int = 0) -> Path:
    """A random TabPFN with `classes` answers, or `bars` bars of a distribution, or both where the architecture has both heads."""
    import torch

    network, config = _pfn(architecture, classes, bars)
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3, generator=made)
    _save_pfn(path, architecture, network, config, torch.linspace(-4, 4, bars + 1) if bars else None)
    return path


def taught_tabicl(path: Path, *, steps: int = 700) -> Path:
    """A TabICL that has learnt to tell two or three classes apart on made-up tables."""
    import torch
    from tabicl._model.tabicl import TabICL

    torch.manual_seed(0)
    config = {"max_classes": 3, **TINY_ICL, "embed_dim": 24}
    network = TabICL(**config).train()

    def logits(x, y, shown):
        return network(x, y[:, :shown].float())

    _teach(network, logits, steps)
    torch.save({"config": config, "state_dict": network.state_dict()}, path)
    return path


def taught_tabpfn(path: Path, *, steps: int = 700) -> Path:
    """A TabPFN 3 that has learnt the same."""
    import torch

    torch.manual_seed(0)
    network, config = _pfn("tabpfn_v3", 3, 0)
    network.train()

    def logits(x, y, shown):
        return network(x.transpose(0, 1), y[:, :shown].float().transpose(0, 1)).transpose(0, 1)

    _teach(network, logits, steps)
    _save_pfn(path, "tabpfn_v3", network, config, None)
    return path


def _teach(network, logits, steps: int) -> None:
    import torch

    adam = torch.optim.AdamW(network.parameters(), lr=2e-3)
    pace = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, total_steps=steps)
    for _ in range(steps):
        x, y, shown = _tables(24)
        out = logits(x, y, shown)
        loss = torch.nn.functional.cross_entropy(out.reshape(-1, out.shape[-1])[:, :3], y[:, shown:].reshape(-1))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        pace.step()
    network.eval()


def _tables(many: int):
    """Made-up tables: x (many, rows, columns), y (many, rows), rows shown. Labels are quantiles of a random line or small network."""
    import torch

    rows, columns = 80, int(torch.randint(2, 8, ()))
    shown = int(torch.randint(20, 60, ()))
    x = torch.randn(many, rows, columns) @ (torch.eye(columns) + 0.4 * torch.randn(many, columns, columns))
    hidden = torch.tanh(x @ torch.randn(many, columns, 6) / columns**0.5 + torch.randn(many, 1, 6))
    line = (x @ (torch.randn(many, columns, 1) * (torch.rand(many, columns, 1) < 0.7)))[..., 0]
    curve = (hidden @ torch.randn(many, 6, 1))[..., 0]
    score = torch.where(torch.rand(many, 1) < 0.6, line, curve) + 0.05 * torch.randn(many, rows)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    classes = int(torch.randint(2, 4, ()))
    edges = torch.quantile(score, torch.linspace(0, 1, classes + 1)[1:-1], dim=1).T
    y = (score[..., None] > edges[:, None, :]).sum(-1)
    names = torch.argsort(torch.rand(many, classes), 1)  # which class has which number is told by the shown rows only
    return x, names.gather(1, y), shown


def _pfn(architecture: str, classes: int, bars: int):
    from tabpfn.architectures import ARCHITECTURES

    module = ARCHITECTURES[architecture]
    config, _ = module.parse_config({"max_num_classes": classes, "num_buckets": bars, **TINY_PFN[architecture]})
    return module.get_architecture(config), config


def _save_pfn(path: Path, architecture: str, network, config, borders) -> None:
    """As the published files are: version 2 names no architecture, versions from 3 on hold their own settings."""
    import torch
    from tabpfn.architectures.shared.bar_distribution import FullSupportBarDistribution
    from tabpfn.constants import ModelVersion
    from tabpfn.inference_config import InferenceConfig

    state = dict(network.state_dict())
    if borders is not None and not any("borders" in name for name in state):
        state |= {f"criterion.{name}": value for name, value in FullSupportBarDistribution(borders).state_dict().items()}
    whole = {"state_dict": state, "config": dataclasses.asdict(config)}
    if architecture != "tabpfn_v2":
        whole["architecture_name"] = architecture
    if architecture in ("tabpfn_v3", "tabpfn_v3_5"):
        settings = dataclasses.asdict(InferenceConfig.get_default("multiclass", ModelVersion.V2_5))
        whole["inference_config"] = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    torch.save(whole, path)
