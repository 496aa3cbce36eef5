"""Somebody else's model, judged on the same rows: a file of its answers, a program, an address, or an AutoGluon predictor.

It is taken as it answers, with one exception: where a model gives labels and the loss is about probabilities, what a label
of it is worth, P(truth | answer), is learnt from training rows: a Dirichlet prior around "right with the overall share, else
as the classes are", its weight chosen by leave-one-out likelihood (Dawid & Skene 1979 for one rater whose truth is known).
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.data.external import command
from assay.data.external.answers import Answers, label_texts, table_of, understood
from assay.data.external.endpoint import Address, Endpoint, key_variables
from assay.data.external.predictions import Predictions, rows_of
from assay.data.external.spec import autogluon_words, entries
from assay.data.split import holdout
from assay.data.values import labels as as_labels
from assay.errors import AssayError, BundleError, EndpointError, InputError
from assay.families.base import Budget, Candidate, Model
from assay.registry import discover
from assay.tasks.classify import Classify
from assay.words import Text, say

PROBE_ROWS = 8  # asked of an address first: it shows whether it answers, and with what
LEARN_ROWS = {"endpoint": 200, "command": 2000, "autogluon": 2000}  # of train, to learn what labels are worth; those of an address cost money
PRIOR_ROWS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_asked_for: set[str] = set()  # programs and addresses that were named in this process, not by a file


class External(Model):
    """params: kind (file, command, endpoint, autogluon) with path, command, url, or folder and python; price (money a row);
    rows (of the data file, for a file of answers); keys (environment variables, for an address); online (whether it needs a network).

    facts: answers (labels, probabilities, amounts), matched_by, agreement (share of training rows that the labels get right),
    learnt_rows, ready (it was finished before this run, so it may have seen the rows), latency_ms (None where it is not
    known), money_per_row, run_s and run_peak_mb (of one run of a program), packable (always false).
    """

    def __init__(self, task: Any, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.labels = label_texts(task.classes) if isinstance(task, Classify) else None
        self.kind = params["kind"]
        self.learnt: np.ndarray | None = None
        self.seed = 0
        self.limits = command.Limits()
        self.words: list[str] = []
        self.train: Dataset | None = None
        self.target = str(schema.target or "")
        self.predictions: Predictions | None = None
        self.memo: dict[Any, Any] = {}
        if self.kind == "command":
            self.words = command.words_of(params["command"])
        elif self.kind == "autogluon":
            self.words = autogluon_words(params["folder"], params["python"], getattr(task, "quantile", 0.5))

    @property
    def learns(self) -> bool:
        """Whether it is trained here; else it was finished before."""
        return self.kind == "command" and command.learns(self.words)

    # ---- fit: nothing is trained but the worth of labels; what cannot answer is found out now

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> External:
        _asked_for.add(_whereabouts(self.params))
        self.seed, self.memo, self.target = seed, budget.memo, str(train.schema.target)
        seconds = max(0.1, budget.left() + (budget.predict_seconds if math.isfinite(budget.predict_seconds) else 0.0))
        self.limits = command.Limits(seconds, budget.memory_mb, budget.threads)
        self.facts |= {"kind": self.kind, "packable": False, "ready": not self.learns} | self._priced()
        if self.learns:
            self.train = train
            self.learnt, known = self.memo.get(("external worth", *self.words), (None, {}))
            self.facts |= known
            return self
        if self.kind == "file":
            self.predictions = self._file(train)
            self.facts |= {"matched_by": self.predictions.by or "row order", "file_rows": len(self.predictions.answers), "digest": self.predictions.digest}
        some = self._some(train, budget)
        answers = self._ask(train.take(some).asked())
        if answers.kind == "labels" and self.kind == "endpoint" and len(train) > len(some):
            some = self._sample(train, LEARN_ROWS["endpoint"])
            answers = self._ask(train.take(some).asked())
        self._learn(answers, self.task.truth(train.take(some)))
        return self

    def _file(self, train: Dataset) -> Predictions:
        key = ("external file", self.params["path"])
        if key not in self.memo:
            self.memo[key] = Predictions.read(Path(self.params["path"]), train, labels=self.labels, rows=self.params.get("rows"))
        return self.memo[key]

    def _some(self, train: Dataset, budget: Budget) -> np.ndarray:
        """The training rows to ask first: all of a file, few of an address, in between where only a program has to start."""
        if self.kind == "file":
            return np.arange(len(train))
        return self._sample(train, PROBE_ROWS if self.kind == "endpoint" or self.labels is None else LEARN_ROWS[self.kind])

    def _sample(self, train: Dataset, most: int) -> np.ndarray:
        return np.sort(np.random.default_rng(self.seed).permutation(len(train))[:most])

    def _learn(self, answers: Answers, truth: np.ndarray) -> None:
        if answers.kind != "labels" or self.labels is None:
            return
        codes = answers.values[:, 0].astype(np.int64)
        self.learnt = worth_of_labels(codes, truth, len(self.labels))
        if getattr(self.task, "loss", "") == "error":  # what is judged is the label that it said
            self.learnt = _keeping(self.learnt)
        self.facts |= {"agreement": float((codes == truth).mean()), "learnt_rows": len(truth)}

    def _priced(self) -> dict[str, Any]:
        price = self.params.get("price")
        return {} if price is None else {"money_per_row": float(price)}

    # ---- asking

    def _ask(self, asked: Dataset, train: Dataset | None = None) -> Answers:
        """One answer a row. Raises the sentence that says why not."""
        answers = {"file": self._from_file, "endpoint": self._from_endpoint}.get(self.kind, self._from_program)(asked, train)
        self.facts["answers"] = answers.kind
        self.facts |= {k: v for k, v in answers.facts.items() if k != "columns"}
        return answers

    def _from_file(self, asked: Dataset, _: Dataset | None) -> Answers:
        assert self.predictions is not None
        self.facts |= {"latency_ms": None, "latency_p95_ms": None}  # a file does not say how long its answers took
        return self.predictions.ask(asked)

    def _from_endpoint(self, asked: Dataset, _: Dataset | None) -> Answers:
        url = self.params["url"]
        model = Endpoint(url, keys=self.params.get("keys"), timeout_s=min(60.0, max(2.0, self.limits.seconds / 3)))
        source = say("The model at {host}", host=Address.of(url).host)
        until = time.monotonic() + self.limits.seconds if math.isfinite(self.limits.seconds) else math.inf
        try:
            sent = model.ask(_rows(asked), until=until)
        finally:
            for name, count in (("requests", model.requests), ("rows_asked", model.rows)):
                self.facts[name] = self.facts.get(name, 0) + count
            if (price := self.params.get("price")) is not None:
                self.facts["money"] = self.facts["rows_asked"] * float(price)
        if model.singles_ms:
            self.facts |= {"latency_ms": float(np.median(model.singles_ms)), "latency_p95_ms": float(np.quantile(model.singles_ms, 0.95))}
        try:
            answers = understood(table_of(sent, self.labels), labels=self.labels, target=self.target, source=source)
            return answers.complete(source)
        except InputError as wrong:
            raise EndpointError(wrong.text) from None

    def _from_program(self, asked: Dataset, train: Dataset | None) -> Answers:
        self.facts |= {"latency_ms": None, "latency_p95_ms": None}  # one run answers many rows; a single one would start it anew
        try:
            ran = command.run(self.words, asked=asked.frame, train=train.frame if train else None, limits=self.limits, seed=self.seed)
        except command.Failed as failed:
            raise (_autogluon_failed(failed, self.params) if self.kind == "autogluon" else failed) from None
        self.facts |= {"run_s": ran.seconds, "run_rows": len(asked), "run_peak_mb": ran.peak_mb} | _measured(ran.beside, len(asked))
        source: Text | str = "AutoGluon" if self.kind == "autogluon" else self.words[0]
        ids = [c.name for c in asked.schema.columns if c.kind == "id" and c.name in ran.table.columns]
        skip = {c.name for c in asked.schema.columns}
        answers = understood(ran.table, labels=self.labels, target=self.target, source=source, skip=skip)
        return _in_order(answers, ran.table, asked, ids, source)

    # ---- answering

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        self.facts |= self._priced()
        if self.kind != "file" and _whereabouts(self.params) not in _asked_for:
            raise BundleError("A file cannot bring a program or an address to ask: {what}. Name it yourself with --external.", what=_whereabouts(self.params))
        answers = self._ask(asked, self.train)
        if answers.kind != "labels":
            return answers.values.astype(np.float64)
        if self.learnt is None and self.train is not None:
            self._learn_by_training()
        worth = np.eye(self.task.width) if self.learnt is None else self.learnt
        return worth[answers.values[:, 0].astype(np.int64)]

    def _learn_by_training(self) -> None:
        """What the labels of a program that learns are worth: it is run once more, and asked rows that it did not learn from."""
        assert self.train is not None
        rest, held = holdout(self.train, share=0.25, seed=self.seed, strata=self.task.strata(self.train), most=LEARN_ROWS["command"])
        kept = self.facts
        self.facts = dict(kept)
        answers = self._ask(self.train.take(held).asked(), self.train.take(rest))
        self.facts = kept
        self._learn(answers, self.task.truth(self.train.take(held)))
        self.memo[("external worth", *self.words)] = self.learnt, {k: self.facts[k] for k in ("agreement", "learnt_rows") if k in self.facts}

    # ---- on disk: never a program, an address or a key

    def dump(self, folder: Path) -> None:
        packed: dict[str, Any] = {"kind": self.kind, "seed": self.seed, "target": self.target, "learnt": None if self.learnt is None else self.learnt.tolist(),
                                  "seconds": self.limits.seconds if math.isfinite(self.limits.seconds) else None,
                                  "memory_mb": self.limits.memory_mb, "threads": self.limits.threads}
        if self.predictions is not None:
            packed |= {"answers": self.predictions.answers.kind, "by": self.predictions.by, "source": self.predictions.source}
            self.predictions.dump(folder / "answers.parquet")
        if self.train is not None:
            self.train.frame.write_parquet(folder / "train.parquet")
            packed["schema"] = self.train.schema.json()
        (folder / "external.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> External:
        packed = json.loads((folder / "external.json").read_text(encoding="utf-8"))
        self.seed, self.target = packed["seed"], packed["target"]
        self.learnt = None if packed["learnt"] is None else np.array(packed["learnt"])
        self.limits = command.Limits(packed["seconds"] or math.inf, packed["memory_mb"], packed["threads"])
        if self.kind == "file":
            self.predictions = Predictions.of(folder / "answers.parquet", kind=packed["answers"], by=packed["by"], source=packed["source"])
        if (folder / "train.parquet").exists():
            self.train = Dataset(pl.read_parquet(folder / "train.parquet"), Schema.of(packed["schema"]))
        return self


def worth_of_labels(said: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """P(truth | answer), shape (k, k), one row an answer; each sums to 1, none is 0. said, truth: codes (n,)."""
    counts = np.bincount(said * classes + truth, minlength=classes**2).reshape(classes, classes).astype(float)
    shares = (counts.sum(axis=0) + 1) / (counts.sum() + classes)
    right = (counts.trace() + 1) / (counts.sum() + 2)
    centre = (1 - right) * shares[None, :] / (1 - shares[:, None])
    np.fill_diagonal(centre, right)
    total = counts.sum(axis=1, keepdims=True)

    def left_out(weight: float) -> float:
        """Log likelihood of every row under what all the others say."""
        return float((counts * np.log((np.maximum(counts - 1, 0) + weight * centre) / np.maximum(total - 1 + weight, weight))).sum())

    weight = max(PRIOR_ROWS, key=left_out)
    return (counts + weight * centre) / (total + weight)


def _keeping(worth: np.ndarray) -> np.ndarray:
    """The same, moved towards the answer until that is the likeliest label."""
    out = worth.copy()
    for code, row in enumerate(worth):
        ahead = float(np.delete(row, code).max()) - row[code]
        if ahead >= 0:
            share = (ahead + 1e-3) / (ahead + 1)
            out[code] = (1 - share) * row
            out[code, code] += share
    return out


def _in_order(answers: Answers, table: pl.DataFrame, asked: Dataset, ids: list[str], source: Text | str) -> Answers:
    """A program's answers in the order of the rows asked: by an id if it wrote one, else as they stand."""
    for name in ids:
        keys = table[name]
        if keys.n_unique() == len(keys) == table.height:
            return Predictions(answers, as_labels(keys).alias(name), str(source)).ask(asked)
    if table.height != len(asked):
        raise InputError("{source} wrote {found:,} answers to {rows:,} rows.", source=source, found=table.height, rows=len(asked))
    return answers.complete(source)


def _rows(asked: Dataset) -> list[dict[str, Any]]:
    """What is sent of each row: its features (no id, no group), as JSON has them."""
    frame = asked.frame.select([c.name for c in asked.schema.features])
    frame = frame.with_columns([pl.col(name).cast(pl.Int64) for name in command.whole_columns(frame)])
    frame = frame.with_columns([pl.col(c.name).dt.to_string("iso:strict") for c in asked.schema.features if c.kind == "time"])
    return frame.to_dicts()


def _measured(beside: dict[str, Any], rows: int) -> dict[str, Any]:
    """What the program says it measured; only the AutoGluon script says anything."""
    single = beside.get("single_ms")
    if not isinstance(single, list) or not single:
        return {}
    return {"latency_ms": float(np.median(single)), "latency_p95_ms": float(np.quantile(single, 0.95)), "made_by": f"AutoGluon {beside['version']}",
            "load_s": float(beside["load_s"]), "predict_s_per_row": float(beside["predict_cpu_s"]) / max(rows, 1)}


def _autogluon_failed(failed: command.Failed, params: dict[str, Any]) -> AssayError:
    """The sentence for the statuses of the script that runs there."""
    if failed.status == 3:
        return InputError("AutoGluon is not installed in the environment of '{python}' ({error}).", python=params["python"], error=failed.last)
    if failed.status == 4:
        return InputError("The AutoGluon predictor '{folder}' does not open with '{python}': {error}. Name the environment that made it.",
                          folder=params["folder"], python=params["python"], error=failed.last)
    if failed.status == 5:
        return InputError("The AutoGluon predictor '{folder}' does not answer these rows: {error}.", folder=params["folder"], error=failed.last)
    return failed


def _whereabouts(params: dict[str, Any]) -> str:
    return str(params.get("command") or params.get("url") or params.get("folder") or params.get("path"))


def _instances(case: Case, schema: Schema) -> list[tuple[str, dict[str, Any]]]:
    """One contestant an entry of `case.external`, with its price. Raises InputError naming the entry that cannot be."""
    if not case.external:
        return []
    found = entries(case.external, discover("assay.families", Candidate))
    for name, price in case.external_price.items():
        if name not in [n for n, _ in found]:
            raise InputError("A price is named for '{name}', but no model of yours is called so. There are: {names}.", name=name, names=[n for n, _ in found])
        if not 0 <= float(price) < math.inf:
            raise InputError("The price of '{name}', {price} a row, is no amount of money.", name=name, price=str(price))
    rows = rows_of(case.data) if any(params["kind"] == "file" for _, params in found) else None
    alone = len({Address.of(params["url"]).host for _, params in found if params["kind"] == "endpoint"}) == 1
    for name, params in found:
        params["price"] = case.external_price.get(name)
        if params["kind"] == "file":
            params["rows"] = rows
        elif params["kind"] == "endpoint":
            params["keys"] = key_variables(name, alone=alone)
    return found


def _prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    return {} if case.external else say("no model of your own was given: --external FILE, cmd:PROGRAM or https://ADDRESS")


external = Candidate(
    name="external", rung="external", tasks=("classify", "regress"), build=External, prepare=_prepare, instances=_instances,
    reads=("number", "category", "text", "time"), share=4.0, valid_rows=1000, source="docs/external.md", licence="that of the model", version="1",
)
