"""The house stands: floors, file sizes, no circles, a fast front door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "assay"
FLOORS = {"words": -2, "errors": -1, "registry": 0, "__init__": 6, "data": 1, "case": 1, "tasks": 2, "neural": 2, "decide": 2, "families": 3, "contest": 4,
          "ship": 4, "explain": 4, "compress": 5, "report": 5, "plan": 5, "api": 6, "production": 7, "checks": 6, "store": 1, "watch": 5, "deploy": 5, "connect": 5, "retrain": 7, "serve": 8, "cli": 9}
HEAVY = {"torch", "sklearn", "lightgbm", "onnxruntime", "transformers", "tokenizers", "jinja2", "rich", "scipy", "pandas", "pyarrow", "safetensors", "optuna",
         "catboost", "xgboost", "fastexcel", "adbc_driver_postgresql", "pymysql", "openpyxl", "tabpfn", "tabicl", "onnx", "PIL", "soundfile", "peft", "captum",
         "sqlalchemy", "alembic", "starlette", "uvicorn", "nicegui", "fastapi", "pydantic", "prometheus_client", "jwt", "mlflow", "opentelemetry", "statsforecast", "utilsforecast", "ortools", "highspy", "pyvrp", "numba", "matplotlib", "holidays", "psycopg"}
FILES = sorted(SOURCE.rglob("*.py"))
GUESTS = {"serve/patience.py": {"uvicorn"}}  # a class of the server's own, which only the server imports


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> list[str]:
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            out += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            out.append(node.module)
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_file_imports_lower_floors_and_its_own_room_only(path):
    own = _room(path)
    for name in _imports(ast.parse(path.read_text(encoding="utf-8"))):
        if name.startswith("assay."):
            other = name.split(".")[1]
            assert other == own or FLOORS[other] < FLOORS[own] or own == "__init__", f"{path} (floor {FLOORS[own]}) imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_file_is_longer_than_400_lines(path):
    assert path.read_text(encoding="utf-8").count("\n") <= 400


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_heavy_libraries_are_imported_inside_functions(path):
    top = ast.Module([n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
    assert not {name.split(".")[0] for name in _imports(top)} & HEAVY - GUESTS.get(path.relative_to(SOURCE).as_posix(), set())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_can_run_what_it_reads(path):
    calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)}
    assert not calls & {"pickle.load", "pickle.loads", "joblib.load", "eval", "exec", "torch.load", "marshal.loads", "yaml.load"}


def test_one_family_is_one_file_and_imports_no_other_family():
    for path in (SOURCE / "families").glob("*.py"):
        others = [n for n in _imports(ast.parse(path.read_text(encoding="utf-8"))) if n.startswith("assay.families.")]
        assert set(others) <= {"assay.families.base"}, path


def test_the_front_door_imports_nothing_heavy():
    code = "import sys, assay.cli; print(sorted({'numpy', 'polars', 'pydantic', 'rich', 'torch', 'sklearn'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "assay --help has to answer within 0.3 s (bench/help.py measures it)"


def test_torchvision_is_not_installed_beside_torch():
    import importlib.util

    assert importlib.util.find_spec("torchvision") is None, "its PyPI build breaks transformers beside the CPU build of torch"
