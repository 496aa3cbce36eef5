"""Looking before training: findings and structure. One file a kind of finding."""

from __future__ import annotations

from assay.data.dataset import Dataset
from assay.data.inspect import joint, leak
from assay.data.inspect.base import LEVELS, Finding, Structure
from assay.data.inspect.moment import absolute, time_columns
from assay.data.inspect.structure import structure
from assay.data.inspect.view import View


def findings(data: Dataset, *, labels: bool, seed: int, seconds: float = 10) -> list[Finding]:
    """Everything worth knowing before training, most severe first, in at most `seconds`.

    labels: the answer is a class (else an amount). Large tables are looked at through a sample; `figure["sampled"]` says so.
    """
    view = View.of(data, labels=labels, seed=seed, seconds=seconds)
    shape = structure(data, labels=labels, seed=seed)
    apart = absolute(data) | set(time_columns(data)) | ({shape.column} if shape.column else set())
    found: list[Finding] = []
    single, certain = leak.one_column(view, apart=apart)
    found += single
    apart |= set(certain)
    found += joint.flags(view, apart=apart)
    found += joint.parts(view, apart=apart)
    return sorted(found, key=lambda f: LEVELS.index(f.level))


__all__ = ["Finding", "Structure", "findings", "structure"]
