"""A folder of data may hold files that are called like Python's own modules: assay runs none of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

NAMES = ("random", "secrets", "numpy", "polars", "sqlalchemy", "assay")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nraise SystemExit('{name} of the data folder')\n")
    x = np.random.default_rng(0).normal(size=(300, 2)).round(3)
    lines = [f"{a},{b},{'yes' if a + b > 0 else 'no'}" for a, b in x]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,sold", *lines]) + "\n")
    return tmp_path


def test_a_contest_in_such_a_folder_runs_none_of_them(folder: Path) -> None:
    assay = Path(sys.executable).with_name("assay")
    done = subprocess.run([str(assay), "run", "table.csv", "--target", "sold", "--time", "8s", "--out", "run"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "run" / "winner.assay").is_file()
    assert not (folder / "ran").exists()


def test_a_service_in_such_a_folder_runs_none_of_them(folder: Path) -> None:
    from serving import bundle, running

    packed = bundle(folder / "claims.assay")
    for workers in ("1", "2"):
        with running(folder / f"home{workers}", f"claims={packed}", "--no-page", "--workers", workers, cwd=folder) as service:
            assert service.post("/v1/predict", {"row": {"amount": 120.5, "kind": "hail", "note": "clear case 3"}}).status == 200
    assert not (folder / "ran").exists()
