"""A winner made smaller: whole numbers of 8 bits, pruning, a smaller pupil - and what each costs on the rows that judged."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.contest.folder import Folder, Trial, write_json
from assay.contest.measure import latency, size_mb
from assay.contest.statistics import Bootstrap
from assay.data.dataset import Dataset
from assay.errors import AssayError, InputError, MissingExtra
from assay.families.base import Budget, Candidate, Model
from assay.registry import get
from assay.ship.bundle import Bundle, load, pack
from assay.tasks.base import Task
from assay.words import Text, say

MARGIN = 0.02  # of the loss: what a smaller model may cost, unless the case says otherwise
CALIBRATED_ROWS = 256
LATENCY_S = 1.0


@dataclass(frozen=True)
class Variant:
    """One make of the winner. more: its loss minus the winner's on the same test rows, with a 95 % interval; zero for the winner itself.

    within: whether even the upper end of `more` is below what it may cost.
    """

    name: str
    mb: float
    single_row_ms: float
    loss: float
    more: float
    low: float
    high: float
    within: bool
    note: Text | None = None

    def json(self) -> dict[str, Any]:
        return asdict(self) | {"note": None if self.note is None else self.note.json()}


@dataclass(frozen=True)
class Compressed:
    """rows: the winner first. kept: the name of the variant in `out`, None if nothing was written."""

    rows: list[Variant]
    kept: str | None
    out: Path | None
    test_rows: int
    margin: float

    def json(self) -> dict[str, Any]:
        return {"rows": [r.json() for r in self.rows], "kept": self.kept, "out": None if self.out is None else self.out.name, "test_rows": self.test_rows, "margin": self.margin}


def compress(
    bundle: Path, *, int8: bool = False, prune: float | None = None, prune_weights: float | None = None, student: bool = False, out: Path | None = None,
    seconds: float | None = None, anyway: bool = False, observe: Callable[[Text], None] = lambda note: None,
) -> Compressed:
    """Try the makes asked for on the run that `bundle` lies in, and write the smallest that costs no more than the margin.

    int8: networks in 8-bit whole numbers, calibrated on training rows. prune, prune_weights: share (0-1) of the channels, or of the
    single weights, taken away, with learning after. student: the same family, smaller, taught by the winner. seconds: for each fit; as long as
    the winner's took if None. anyway: write the smallest even if it costs more. Raises InputError, MissingExtra, AssayError.
    """
    run = Folder(bundle.resolve().parent)
    packed = load(bundle)
    if not run.case_file.exists():
        raise InputError("'{file}' does not lie in the folder of its run, whose rows are needed to judge what is smaller. Name RUN/winner.assay.", file=bundle.name)
    case, task, data, splits, _ = run.open()
    trial = _trial(run, packed)
    kept = run.model_folder(trial.key)
    split = splits[trial.split]
    test, train = data.take(split.test), data.take(split.train)
    calibration = json.loads((kept / "calibration.json").read_text(encoding="utf-8"))
    candidate = packed.candidate
    wishes = [(name, change) for name, change in (("pruned", {"prune": prune}), ("weights pruned", {"prune_weights": prune_weights})) if next(iter(change.values()))]
    wishes += list(candidate.smaller) if student else []
    if not int8 and not wishes:
        raise InputError("Say how it should become smaller: --int8, --prune 0.5, --prune-weights 0.8 or --student."
                         if not student else "'{name}' has no smaller make that could be taught.", name=candidate.name)
    time_s = seconds or max(10.0, 1.5 * float(trial.cost.get("fit_wall_s", 10.0)))
    with tempfile.TemporaryDirectory(prefix="assay-") as place:
        folders = {"whole": kept / "model"}
        params = {"whole": trial.params}
        models = {"whole": _loaded(candidate, task, packed, trial.params, kept / "model")}
        for name, change in wishes:
            observe(say("{name}: learning for up to {seconds:.0f} s", name=name, seconds=time_s))
            params[name] = {k: v for k, v in (trial.params | change).items() if k != "teacher"}
            folders[name] = Path(place) / name.replace(" ", "-")
            models[name] = _fitted(candidate, task, packed, params[name], train, _answers_of(models["whole"], train) if change.get("teacher") else None,
                                   time_s, folders[name], run)
        if int8:
            for name in list(models):
                for how in ("static", "dynamic"):
                    observe(say("{name}: to 8-bit whole numbers ({how})", name=name, how=how))
                    made = quantised(folders[name], Path(place) / f"{name}-{how}".replace(" ", "-"), models[name], train, how=how, seed=case.seed)
                    if made is not None:
                        label = f"int8 {how}" if name == "whole" else f"{name}, int8 {how}"
                        folders[label], params[label] = made, params[name]
                        models[label] = _loaded(candidate, task, packed, params[name], made)
        rows = _judged(models, folders, task, train, test, split.clusters, calibration, case.margin, case.seed)
        small = [r for r in rows[1:] if (r.within or anyway) and r.mb < rows[0].mb]
        if not small:
            return _told(run, Compressed(rows, None, None, len(test), _margin(case.margin, rows[0].loss)))
        best = min(small, key=lambda r: (r.mb, r.loss))
        target = out or bundle.with_name(f"{bundle.stem}-small.assay")
        bits = best.name.rpartition("int8 ")[2] if "int8" in best.name else None
        base = best.name.split(", int8")[0] if ", int8" in best.name else "whole" if bits else best.name
        _write(target, packed, base, bits, params[best.name], dict(wishes).get(base, {}), data, time_s, Path(place) / "final", best, run)
    return _told(run, Compressed(rows, best.name, target, len(test), _margin(case.margin, rows[0].loss)))


def _told(run: Folder, found: Compressed) -> Compressed:
    """Write it beside the verdict, for the report."""
    write_json(run.path / "compressed.json", found.json())
    return found


def quantised(model: Path, into: Path, loaded: Model, train: Dataset, *, how: str, seed: int) -> Path | None:
    """A copy of a dumped model whose ONNX networks hold 8-bit weights; None if it has no network, or it cannot be done this way.

    static: activations too, their ranges taken from training rows (QDQ, for convolutions). dynamic: activations when they come
    (for matrix products). Sizes above 50 kB only.
    """
    files = [f for f in sorted(model.rglob("*.onnx")) if f.stat().st_size > 50_000]
    if not files or (how == "static" and (not hasattr(loaded, "feeds") or len(files) > 1)):
        return None
    try:
        import onnx  # noqa: F401 - onnxruntime's tools need it
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError:
        raise MissingExtra("onnx", extra="deep") from None

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
            self.feeds = feeds

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    shutil.copytree(model, into)
    for file in files:
        own = into / file.relative_to(model)
        ready = own.with_suffix(".ready")
        try:
            quant_pre_process(str(file), str(ready), skip_symbolic_shape=True)
        except Exception:  # a graph that cannot be folded beforehand is quantised as it is
            shutil.copyfile(file, ready)
        try:
            if how == "static":
                some = train.take(np.sort(np.random.default_rng(seed).permutation(len(train))[:CALIBRATED_ROWS]))
                quantize_static(str(ready), str(own), Reader(loaded.feeds(some.asked())), quant_format=QuantFormat.QDQ, per_channel=True,  # type: ignore[attr-defined]
                                weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8)
            else:
                quantize_dynamic(str(ready), str(own), weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm", "LSTM", "Attention"])
        except Exception:  # an operator that the tools do not know
            shutil.rmtree(into)
            return None
        finally:
            ready.unlink(missing_ok=True)
    return into


def _trial(run: Folder, packed: Bundle) -> Trial:
    """The trial whose model judged this bundle, on the first split."""
    name = packed.facts.get("name", packed.candidate.name)
    for trial in run.trials():
        if trial.candidate == name and trial.contest and trial.status == "done" and (run.model_folder(trial.key) / "model").is_dir():
            return trial
    raise InputError("The run in '{folder}' no longer holds the model of '{name}' that was judged. Run again, and keep its folder 'models'.",
                     folder=str(run.path), name=name)


def _loaded(candidate: Candidate, task: Task, packed: Bundle, params: dict[str, Any], folder: Path) -> Model:
    return candidate.build(task, packed.schema, **params).load(folder)


def _fitted(candidate: Candidate, task: Task, packed: Bundle, params: dict[str, Any], train: Dataset, teacher: np.ndarray | None, seconds: float,
            folder: Path, run: Folder) -> Model:
    budget = Budget(seconds=seconds, cache=run.path / "cache", memo={} if teacher is None else {"teacher": teacher})
    model = candidate.build(task, packed.schema, **params).fit(train, seed=int(packed.facts.get("seed") or 0), budget=budget)
    folder.mkdir(parents=True)
    model.dump(folder)
    return _loaded(candidate, task, packed, params, folder)


def _answers_of(model: Model, rows: Dataset) -> np.ndarray:
    return np.asarray(model.predict(rows.asked()))


def _judged(models: dict[str, Model], folders: dict[str, Path], task: Task, train: Dataset, test: Dataset, clusters: np.ndarray, calibration: dict[str, Any],
            margin: float | None, seed: int) -> list[Variant]:
    losses = {name: task.losses(train, test, task.calibrated(np.asarray(model.predict(test.asked()), dtype=np.float64), calibration)) for name, model in models.items()}
    boot = Bootstrap(losses, clusters, confidence=0.95, seed=seed)
    most = _margin(margin, boot.mean["whole"])
    rows = []
    for name, model in models.items():
        gap = boot.gain(name, "whole")
        speed = latency(model, task, calibration, test.asked(), seconds=LATENCY_S)
        rows.append(Variant(name, round(size_mb(folders[name]), 4), round(speed["single_row_ms"], 4), float(boot.mean[name]), gap.value, gap.low, gap.high,
                            name == "whole" or bool(gap.high <= most)))
    return rows


def _margin(margin: float | None, loss: float) -> float:
    return margin if margin is not None else MARGIN * loss


def _write(target: Path, packed: Bundle, base: str, how: str | None, params: dict[str, Any], change: dict[str, Any], data: Dataset, seconds: float, place: Path,
           best: Variant, run: Folder) -> None:
    """The same make of the bundle's own model, which has learnt from all rows, as a bundle."""
    place.mkdir(parents=True)
    if base == "whole":
        model, folder = packed.model, place / "whole"
        folder.mkdir()
        model.dump(folder)
    else:
        folder = place / "made"
        teacher = _answers_of(packed.model, data) if change.get("teacher") else None
        model = _fitted(packed.candidate, packed.task, packed, params, data, teacher, seconds, folder, run)
    if how is not None:
        made = quantised(folder, place / "int8", model, data, how=how, seed=0)
        if made is None:
            raise AssayError("The bundle's own network could not be brought to 8 bits as the judged one was.")
        folder = made
    facts = packed.facts | {"compressed": best.json(), "of": packed.digest}
    pack(target, task=packed.task, candidate=get("assay.families", Candidate, packed.candidate.name), params=params, schema=packed.schema, model_folder=folder,
         calibration=packed.calibration, facts=facts, reference=packed.reference)
