"""assay: the referee that tells, with evidence, whether a large model is worth it.

    import assay
    run = assay.run(df, target="churn", time="60s")
    print(run.verdict)
    run.report("report.html")
    assay.load(run.winner).predict(df)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "judge", "load", "resume", "run"]

if TYPE_CHECKING:
    from assay.api import judge, load, resume, run


def __getattr__(name: str) -> Any:
    """The verbs are imported on first use, so that `import assay` and `assay --help` stay fast."""
    if name in ("judge", "load", "resume", "run"):
        from assay import api

        return getattr(api, name)
    raise AttributeError(f"module 'assay' has no attribute {name!r}")
