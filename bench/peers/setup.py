"""The peers' environments, each its own, outside this repository: python bench/peers/setup.py [peer ...]

$ASSAY_PEERS (default: ~/.cache/assay-peers) gets one virtual environment a peer with pinned versions. AutoGluon is given all models of
its default portfolio, the neural ones too: torch's CPU build is installed first, and fastai without torchvision, which its
tabular part never imports but which would bring a CUDA build of several GB. XGBoost comes as its CPU build. ray is left out, which
favours AutoGluon: on 2 cores its start costs good_quality a third of its 60 s (blood_transfusion: log loss 0.538 with it, 0.489
without, folds then trained one after the other). The servers (`bench/serve.py`) each get the same LightGBM as the one that trained;
uvloop, httptools and msgspec stand beside the bare app, uvloop and httptools beside LitServe too: all are quicker with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

HOME = Path(os.environ.get("ASSAY_PEERS", Path.home() / ".cache" / "assay-peers"))
STEPS: dict[str, list[list[str]]] = {
    "autogluon": [["torch==2.13.0"],
                  ["autogluon.tabular[lightgbm,catboost,xgboost,tabm]==1.6.3", "lightgbm==4.7.0", "catboost==1.2.10", "xgboost-cpu==3.2.0",
                   "setuptools<82", "scikit-learn==1.9.1", "pandas==2.3.3", "beartype", "cloudpickle", "rich"],
                  ["--no-deps", "fastai==2.8.7", "fastcore==1.14.5", "fastprogress==1.0.3", "fasttransform", "plum-dispatch", "fastdownload"]],
    "autogluon-ts": [["torch==2.13.0"], ["autogluon.timeseries==1.6.3", "torch==2.13.0", "lightgbm==4.7.0", "statsforecast==2.0.3", "pandas==2.3.3", "setuptools<82"]],
    "flaml": [["flaml==2.7.0", "lightgbm==4.7.0", "catboost==1.2.10", "xgboost-cpu==2.1.4", "scikit-learn==1.9.1", "pandas==2.3.3", "pyarrow"]],
    "lightgbm": [["lightgbm==4.7.0", "scikit-learn==1.9.1", "pandas==2.3.3", "pyarrow"]],
    "serve-bare": [["lightgbm==4.7.0", "scikit-learn==1.9.1", "onnxmltools==1.16.0", "skl2onnx==1.20.0", "onnx==1.23.2", "onnxruntime==1.31.1",
                    "uvicorn==0.54.0", "uvloop", "httptools", "msgspec"]],
    "serve-mlflow": [["mlflow==3.17.2", "lightgbm==4.7.0", "scikit-learn==1.9.1"]],
    "serve-litserve": [["litserve==0.2.19", "lightgbm==4.7.0", "scikit-learn==1.9.1", "uvloop", "httptools"]],
    "serve-bentoml": [["bentoml==1.4.39", "lightgbm==4.7.0", "scikit-learn==1.9.1"]],
}


def python(peer: str) -> Path:
    return HOME / peer / "bin" / "python"


def main() -> None:
    for peer in sys.argv[1:] or STEPS:
        steps = STEPS[peer]
        if not python(peer).exists():
            venv.create(HOME / peer, with_pip=True)
        for packages in steps:
            subprocess.run([python(peer), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
        print(f"{peer}: {HOME / peer}", file=sys.stderr)


if __name__ == "__main__":
    main()
