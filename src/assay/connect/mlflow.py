"""Runs and bundles in MLflow: parameters, metrics, verdict and report, and the winner as a model that its pyfunc loads.

What MLflow keeps of the model is the `.assay` file itself and the name of this module, whose `_load_pyfunc` opens it: data only, nothing pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import __version__
from assay.errors import EndpointError, InputError, MissingExtra
from assay.ship.bundle import Bundle, load

PARAM_MOST = 500  # characters of a parameter that every MLflow store takes
MEDIA = ("image", "audio", "sequence")
EXAMPLE_ROWS = 5


@dataclass(frozen=True)
class Logged:
    """Where it stands. model_uri: what `mlflow.pyfunc.load_model` takes. new: False if the same verdict and bundle were in this experiment already."""

    run_id: str
    experiment_id: str
    model_uri: str
    version: str | None
    new: bool


def log_run(source: str | Path, uri: str, experiment: str, *, model: str | None = None, rows: bool = True) -> Logged:
    """Log a run's folder, or a bundle alone, to the tracking server, database or folder at `uri`.

    Of a folder: the winner's figures as the run's metrics, every candidate as a run below it, verdict.json, report.html and the winner. model: also register
    it under this name. rows: a few of the rows that were asked go along as the input example (they are in the bundle as well).
    A second call with the same verdict and bundle logs nothing. Raises MissingExtra, InputError, EndpointError (the server does not answer).
    """
    mlflow = _mlflow()
    folder, file = _found(Path(source))
    bundle = load(file)
    verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8")) if folder is not None else None
    same = hashlib.sha256(json.dumps([bundle.digest, model, verdict], sort_keys=True).encode()).hexdigest()
    with _speaking(uri):
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient(tracking_uri=uri)
        place = client.get_experiment_by_name(experiment)
        place_id = place.experiment_id if place is not None else client.create_experiment(experiment)
        earlier = client.search_runs([place_id], f"tags.`assay.same` = '{same}' and attributes.status = 'FINISHED'", max_results=1)
        if earlier:
            tags = earlier[0].data.tags
            return Logged(earlier[0].info.run_id, place_id, tags["assay.model_uri"], tags.get("assay.model_version"), new=False)
        with mlflow.start_run(experiment_id=place_id, run_name=folder.name if folder is not None else file.stem) as run:
            mlflow.set_tags({"assay.digest": bundle.digest, "assay.version": __version__, "assay.task": bundle.task.name, "assay.candidate": bundle.candidate.name,
                             "assay.rung": bundle.candidate.rung} | ({"assay.outcome": verdict["outcome"]} if verdict else {}))
            mlflow.log_params(params_of(bundle, verdict))
            mlflow.log_metrics(_numbers(bundle.facts.get("metrics") or {}) | {k: float(bundle.facts[k]) for k in ("loss",) if _is_number(bundle.facts.get(k))})
            mlflow.log_dict(bundle.describe(), "bundle.json")
            if folder is not None and verdict is not None:
                _log_folder(mlflow, client, place_id, run.info.run_id, folder, verdict)
            made = _log_model(mlflow, bundle, file, model, rows=rows)
            version = str(made.registered_model_version) if getattr(made, "registered_model_version", None) is not None else None
            mlflow.set_tags({"assay.model_uri": made.model_uri} | ({"assay.model_version": version} if version else {}))
            mlflow.set_tag("assay.same", same)
        return Logged(run.info.run_id, place_id, made.model_uri, version, new=True)


def params_of(bundle: Bundle, verdict: dict[str, Any] | None) -> dict[str, str]:
    """What was asked and what was chosen, as MLflow's parameters: strings of at most 500 characters, no paths of this machine."""
    case = {k: v for k, v in (verdict or {}).get("case", {}).items() if v not in (None, [], {}) and k != "data"}
    chosen = {f"winner.{k}": v for k, v in bundle.params.items()}
    facts = {"candidate": bundle.candidate.name, "rung": bundle.candidate.rung, "task": bundle.task.name, "digest": bundle.digest}
    if verdict is not None:
        facts |= {"data.rows": verdict["data"]["rows"], "data.fingerprint": verdict["data"]["fingerprint"]}
    out = {}
    for key, value in (case | chosen | facts).items():
        told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        out[key] = told if len(told) <= PARAM_MOST else told[:PARAM_MOST - 3] + "..."
    return out


def _log_folder(mlflow: Any, client: Any, place_id: str, run_id: str, folder: Path, verdict: dict[str, Any]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    effect = verdict.get("effect") or {}
    mlflow.log_metrics({f"effect.{k}": float(v) for k, v in effect.items() if _is_number(v)})
    for name in ("verdict.json", "report.html", "summary.html", "trials.jsonl"):
        if (folder / name).is_file():
            mlflow.log_artifact(str(folder / name))
    for line in verdict["scoreboard"]:
        if line["status"] != "done":
            continue
        child = client.create_run(place_id, run_name=line["candidate"], tags={"mlflow.parentRunId": run_id}).info.run_id
        figures = _numbers(line.get("metrics") or {}) | {k: float(line[k]) for k in ("loss", "valid_loss", "seconds") if _is_number(line.get(k))}
        figures |= {f"cost.{k}": float(v) for k, v in (line.get("cost") or {}).items() if _is_number(v)}
        client.log_batch(child, metrics=[Metric(k, v, now, 0) for k, v in figures.items()],
                         params=[Param("candidate", line["candidate"]), Param("rung", line["rung"])],
                         tags=[RunTag("assay.winner", str(line["candidate"] == verdict["winner"]).lower())])
        client.set_terminated(child)


def _log_model(mlflow: Any, bundle: Bundle, file: Path, name: str | None, *, rows: bool) -> Any:
    example = _example(bundle)
    return mlflow.pyfunc.log_model(
        name="winner", loader_module=__name__, data_path=str(file), signature=signature(bundle, example), input_example=example if rows else None,
        registered_model_name=name, pip_requirements=[_requirement(bundle)], metadata={"assay.digest": bundle.digest, "assay.format": bundle.describe()["format"]})


def signature(bundle: Bundle, example: Any) -> Any:
    """The columns that the bundle asks for and those that it answers with, as MLflow's ModelSignature; None for a forecast, which is asked in whole series.

    Numbers, classes and times are of any type to MLflow: it refuses whole numbers (int64) where it knows a column as double, which is what a CSV file
    gives for every column without a gap. The bundle checks the values itself, and says which one is wrong.
    """
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    if not bundle.task.by_rows:
        return None
    asked = Schema([ColSpec("binary" if column.kind in MEDIA else "string" if column.kind == "text" else AnyType(), column.name) for column in bundle.schema.features])
    answers = infer_signature(model_output=bundle.predict(example)).outputs if example is not None else None
    return ModelSignature(inputs=asked, outputs=answers)


class Opened:
    """A bundle behind MLflow's pyfunc: tables or lists of objects in, a pandas table of answers out."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        import pandas as pd

        answers = self.bundle.predict(model_input)
        return answers if isinstance(answers, pd.DataFrame) else pd.DataFrame(answers)


def _load_pyfunc(path: str) -> Opened:
    """Called by MLflow with the path of the `.assay` file that it keeps."""
    return Opened(load(path))


def _example(bundle: Bundle) -> Any:
    """Some rows that were asked in training, as pandas; None where the bundle keeps none or they lack what a bundle does not keep (pictures, sounds)."""
    if bundle.reference is None or not bundle.task.by_rows or bundle.reference.height == 0:
        return None
    names = [column.name for column in bundle.schema.features]
    if not set(names) <= set(bundle.reference.columns):
        return None
    return bundle.reference.select(names).head(EXAMPLE_ROWS).to_pandas()


def _requirement(bundle: Bundle) -> str:
    extras = sorted(set(bundle.candidate.needs.values()) | {"pandas"})
    return f"assay[{','.join(extras)}]=={__version__}"


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """{name: value}, and of a figure with an interval also name.low and name.high."""
    out = {}
    for name, value in metrics.items():
        if _is_number(value):
            out[name] = float(value)
        elif isinstance(value, dict):
            out |= {name if part == "value" else f"{name}.{part}": float(v) for part, v in value.items() if _is_number(v)}
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _found(source: Path) -> tuple[Path | None, Path]:
    """(the run's folder or None, the bundle)."""
    if source.is_dir():
        if not (source / "verdict.json").is_file() or not (source / "winner.assay").is_file():
            raise InputError("'{folder}' is not the folder of a finished run: it lacks verdict.json or winner.assay. Give the folder that assay run made, or a .assay file.",
                             folder=str(source))
        return source, source / "winner.assay"
    if not source.is_file():
        raise InputError("There is no '{path}'. Give the folder of a run, or a .assay file.", path=str(source))
    return None, source


def _mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a referee tells nobody what it is used for
    try:
        import mlflow
        import mlflow.pyfunc
    except ImportError as error:
        raise MissingExtra(error.name or "mlflow", extra="mlflow") from None
    return mlflow


@contextlib.contextmanager
def _speaking(uri: str) -> Iterator[None]:
    """Whatever MLflow raises is one sentence; a server that is not there is not asked for minutes, and MLflow's own state is put back."""
    from mlflow.exceptions import MlflowException

    mlflow = _mlflow()
    before, patience = mlflow.get_tracking_uri(), {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    added = {k: v for k, v in patience.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    except MlflowException as error:
        raise EndpointError("MLflow at {uri} refused: {reason}", uri=_bare(uri), reason=str(error).splitlines()[0][:300]) from None
    finally:
        for key in added:
            os.environ.pop(key, None)
        mlflow.set_tracking_uri(before)


def _bare(uri: str) -> str:
    """Without a password, for sentences."""
    from urllib.parse import urlsplit

    parts = urlsplit(uri)
    return uri if parts.password is None else f"{parts.scheme}://{parts.hostname}{parts.path}"
