"""A large language model behind an OpenAI-compatible endpoint, shown a few known rows and asked for the next one.

Few-shot prompting: Brown et al. 2020 (arXiv:2005.14165). Nearest rows as shots: Liu et al. 2022 (arXiv:2101.06804).
What its probabilities are worth is learnt on held-out rows of train (`neural.labels`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.data.split import holdout
from assay.errors import EndpointError, InputError
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.neural.answers import Answers
from assay.neural.chat import Answer, Chat, NoTimeLeft, RequestRefused
from assay.neural.endpoint import endpoint_of, money_of, trust, trusted
from assay.neural.labels import UNLEARNT, calibrated, learn
from assay.neural.prompt import VERSION, Protocol, Question, row_texts
from assay.neural.shots import MOST_POOL, Nearest, balanced, strata_of
from assay.tasks.classify import Classify
from assay.words import Text, say

CHARACTERS = {"en": 6000, "zh": 2400}  # of shots in a prompt: about 1700 tokens in both languages
GROW = (0.1, 0.25, 0.5, 1.0)  # shares of that; how far up depends on the endpoint's pace and context
GROW_ROWS = 60  # a fit should have time for about this many rows
FIXED_CLASSES = 10  # with more classes than this, a prompt cannot show them all: nearest rows only
HELD_ROWS = (48, 32, 16, 8)
FIRST_ROWS = 20


@dataclass(frozen=True)
class _Known:
    """The rows of train without their answers, the answers as a prompt shows them, and codes (n,) to balance shots by."""

    asked: Dataset
    answers: list[str]
    strata: np.ndarray


class LLM(Model):
    """params: url, model, price_in, price_out (per million tokens), lang."""

    question: Question
    shots: list[tuple[str, str]]

    def __init__(self, task: Any, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.protocol = Protocol()
        self.seed = 0
        self.characters = 0
        self.shots = []
        self.pool: Dataset | None = None
        self.pool_answers: list[str] = []
        self.prior = np.zeros(0)
        self.calibration: dict[str, Any] = UNLEARNT
        self._nearest: Nearest | None = None
        self._chat: Chat | None = None
        self._until = float("inf")
        self._counted: set[str] = set()

    # ---- fit: how much can be shown in time, what to show, and how far to believe the answers

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> LLM:
        trust(self.params["url"])
        patience = min(120.0, max(5.0, budget.seconds / 3))
        self.seed, self._chat = seed, Chat(self.params["url"], self.params["model"], answers=Answers(), timeout_s=patience)
        self._until = budget.started + budget.seconds
        try:
            self._fit(train, budget)
        except NoTimeLeft as late:
            raise TooSlow(late.text) from None
        finally:
            self._until = float("inf")
        for key in ("requests", "tokens_in", "tokens_out", "money"):
            if key in self.facts:
                self.facts[f"fit_{key}"] = self.facts[key]
        return self

    def _fit(self, train: Dataset, budget: Budget) -> None:
        truth = self.task.truth(train)
        labels = tuple(str(c) for c in self.task.classes) if isinstance(self.task, Classify) else ()
        span = () if labels else (float(len(train)), float(truth.min()), float(truth.max()), float(np.median(truth)))
        self.question = Question(str(train.schema.target), self.params.get("lang", "en"), labels, span)
        self.prior = (np.bincount(truth, minlength=len(labels)) + 1) / (len(truth) + len(labels)) if labels else np.array(span[1:])
        answers = [labels[c] for c in truth] if labels else [f"{v:.6g}" for v in truth]
        known = _Known(train.asked(), answers, truth if labels else strata_of(truth))
        rest, held = self._held(train, known.strata)
        kinds = ["fixed", "nearest"] if len(labels) <= FIXED_CLASSES else ["nearest"]
        plans: dict[str, tuple[int, float]] = {}
        for kind in kinds:
            try:
                plans[kind] = self._settle(kind, known, rest, held, budget)
            except (TooSlow, NoTimeLeft):
                if kind == kinds[0]:
                    raise
        rows, kinds = _affordable(plans, len(held), 0.5 * budget.seconds)
        held = held[:rows]
        best, chosen, seen = np.inf, kinds[0], 0
        calibration = self.calibration
        for kind in kinds if rows else []:
            self.characters = plans[kind][0]
            self._show(kind, known, rest)
            try:
                loss = self._learn(self._ask(known.asked.take(held)), truth[held])
            except NoTimeLeft:
                break  # the endpoint has become slower since it was timed: go on with what is known so far
            seen = rows
            if loss < best:
                best, chosen, calibration = loss, kind, self.calibration
        self.calibration, self.characters = calibration, plans[chosen][0]
        # fixed shots stay those that the calibration was learnt with; the nearest may now come from every row
        self._show(chosen, known, np.arange(len(train)) if chosen == "nearest" else rest)
        self.facts |= {
            "strategy": chosen, "held_rows": seen, "shot_characters": self.characters, "rows_per_s": round(plans[chosen][1], 3),
            "rows_used": len(self.pool) if self.pool is not None else len(self.shots) + seen,
            "constrained": self.protocol.schema, "log_probabilities": self.protocol.logprobs and bool(labels),
            "calibration": self.calibration.get("name", "none"), "prompt_version": VERSION,
        }
        if self.shots:
            self.facts["shots"] = len(self.shots)

    def _held(self, train: Dataset, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, most = len(train), HELD_ROWS[0]
        if n < 4 * HELD_ROWS[-1]:
            return np.arange(n), np.zeros(0, dtype=np.int64)
        rest, held = holdout(train, share=min(0.25, max(most / n, 0.02)), seed=self.seed, strata=strata, most=most)
        return rest, np.random.default_rng(self.seed).permutation(held)

    def _settle(self, kind: str, known: _Known, rest: np.ndarray, held: np.ndarray, budget: Budget) -> tuple[int, float]:
        """(characters of shots, rows a second): the most that this endpoint can read in time.

        Starts small, because a slow endpoint is then found out soon, and grows while the time is sure to suffice.
        """
        assert self._chat is not None
        probe = known.asked.take(held[:3] if len(held) >= 3 else rest[-3:])
        full = CHARACTERS[self.question.lang]
        wanted = budget.predict_rows / max(0.8 * budget.predict_seconds, 1e-6)
        share: float | None = GROW[0]
        good: tuple[int, float] | None = None
        while share is not None:
            self.characters = round(full * share)
            self._show(kind, known, rest)
            try:
                refusal = self._negotiate(probe.take(np.arange(1)))
                replies = [] if refusal else [r for r in self._ask(probe) if isinstance(r, Answer)]
            except NoTimeLeft:
                if good is None:
                    raise
                return good
            if not replies:
                if good is None:
                    raise refusal or EndpointError("The endpoint of '{model}' refuses every row.", model=self.params["model"])
                return good  # more is too long for it
            # the first one also pays for what a server then remembers of the prompt
            pace = self._chat.parallel / max(1e-4, float(np.mean([r.seconds for r in replies[1:] or replies])))
            if pace < wanted:
                if good is not None:
                    return good
                raise TooSlow(say(
                    "{rows} rows would take about {seconds} s at {pace} rows a second; there are {allowed} s",
                    rows=budget.predict_rows, seconds=round(budget.predict_rows / pace), pace=round(pace, 3), allowed=round(budget.predict_seconds, 1)))
            good = self.characters, pace
            larger = [s for s in GROW if s > share]
            fast = max(wanted, GROW_ROWS / budget.seconds)
            share = next((s for s in reversed(larger) if pace * share / s >= fast), larger[0] if larger and pace > 1.3 * fast else None)
        assert good is not None
        return good

    def _negotiate(self, one: Dataset) -> RequestRefused | None:
        """Give up what the endpoint does not support until it answers. Returns the refusal if the prompt is too long."""
        for _ in range(10):
            reply = self._ask(one, keep_refusals=True)[0]
            if isinstance(reply, RequestRefused):
                if reply.too_long:
                    return reply
                weaker = self.protocol.without(reply.detail)
                if weaker is None:
                    raise reply
                self.protocol = weaker
            elif not self.protocol.thinks and self._code(reply) is None and ("<think>" in reply.text or not reply.text.strip()):
                self.protocol = Protocol(**(asdict(self.protocol) | {"thinks": True, "logprobs": False}))
            else:
                if self.protocol.logprobs and not reply.tokens:
                    self.protocol = Protocol(**(asdict(self.protocol) | {"logprobs": False}))
                return None
        raise EndpointError("The endpoint of '{model}' gave no answer to any form of the question.", model=self.params["model"])

    def _show(self, kind: str, known: _Known, rows: np.ndarray) -> None:
        """Choose the shots among these rows: once (`fixed`), or a pool to choose from for each question (`nearest`)."""
        rng = np.random.default_rng(self.seed)
        self.shots, self.pool, self.pool_answers, self._nearest = [], None, [], None
        some = rows if len(rows) <= MOST_POOL else np.sort(rng.choice(rows, MOST_POOL, replace=False))
        if kind == "nearest":
            self.pool, self.pool_answers = known.asked.take(some), [known.answers[r] for r in some]
            return
        texts = row_texts(known.asked.take(some), self.schema)
        chosen = balanced(known.strata[some], np.array([len(t) for t in texts]), self.characters, rng)
        self.shots = [(texts[i], known.answers[some[i]]) for i in chosen]

    # ---- asking

    def _bodies(self, asked: Dataset) -> list[dict[str, Any]]:
        texts = row_texts(asked, self.schema)
        if self.pool is None:
            return [self.question.body(self.shots, t, self.protocol, self.seed) for t in texts]
        known = row_texts(self.pool, self.schema)
        if self._nearest is None:
            self._nearest = Nearest(self.pool, self.schema)
        lines = self._nearest.rows(asked, np.array([len(t) for t in known]), self.characters)
        return [self.question.body([(known[i], self.pool_answers[i]) for i in line], t, self.protocol, self.seed)
                for line, t in zip(lines, texts, strict=True)]

    def _ask(self, asked: Dataset, *, keep_refusals: bool = False) -> list[Answer | RequestRefused]:
        if self._chat is None:
            trusted(self.params["url"])
            self._chat = Chat(self.params["url"], self.params["model"], answers=Answers())
        bodies = self._bodies(asked)
        first = self._chat.ask(bodies[:FIRST_ROWS], keep_refusals=keep_refusals, until=self._until)
        self._count(first)
        bad = [r for r in first if self._code(r) is None]
        if len(first) >= 8 and len(bad) > len(first) / 2:
            example = bad[0].detail if isinstance(bad[0], RequestRefused) else bad[0].text[:80]
            raise EndpointError(
                "The model '{model}' gave no usable answer to {bad} of the first {n} rows; it said, for example: {example}",
                model=self.params["model"], bad=len(bad), n=len(first), example=example,
            )
        later = self._chat.ask(bodies[FIRST_ROWS:], until=self._until)
        self._count(later)
        return first + later

    def _code(self, reply: Answer | RequestRefused) -> float | None:
        if isinstance(reply, RequestRefused):
            return None
        return self.question.label(reply) if self.question.labels else self.question.number(reply)

    def _count(self, replies: list[Answer | RequestRefused]) -> None:
        """Add replies to the facts. A question asked again by this same model costs nothing; one found on disk did cost."""
        facts = self.facts
        for key in ("requests", "cached", "unparsed", "refused", "tokens_in", "tokens_out", "seconds_asked"):
            facts.setdefault(key, 0)
        for reply in replies:
            if isinstance(reply, RequestRefused):
                facts["refused"] += 1
                continue
            if reply.question in self._counted:
                continue
            self._counted.add(reply.question)
            facts["cached" if reply.cached else "requests"] += 1
            facts["unparsed"] += self._code(reply) is None
            facts["tokens_in"] += reply.tokens_in
            facts["tokens_out"] += reply.tokens_out
            facts["seconds_asked"] += reply.seconds
            if reply.estimated:
                facts["tokens_estimated"] = True
            facts["model"] = self.params["model"]
            if reply.model not in ("", "-", self.params["model"]):
                facts["served_as"] = reply.model
        money = money_of(self.params, facts["tokens_in"], facts["tokens_out"])
        if money is not None:
            facts["money"] = money

    # ---- from replies to probabilities

    def _raw(self, replies: list[Answer | RequestRefused]) -> np.ndarray:
        """(n, k) probabilities as the model gave them, or (n, 1) numbers. Without an answer: the shares of train, or its median."""
        if not self.question.labels:
            low, high, median = self.prior
            reach = high - low  # a number further out than the known range is wide is held there: one slip of digits decides nothing
            numbers = [self._code(r) for r in replies]
            return np.clip([median if v is None else v for v in numbers], low - reach, high + reach).reshape(-1, 1)
        out = np.tile(self.prior, (len(replies), 1))
        for line, reply in zip(out, replies, strict=True):
            code = self._code(reply)
            if code is None or isinstance(reply, RequestRefused):
                continue
            masses = self.question.masses(reply, self.protocol) if self.protocol.logprobs else None
            if masses is None or masses.sum() < 1e-4:
                masses = np.eye(len(line))[int(code)]
            line[:] = masses / masses.sum()
        return out

    def _learn(self, replies: list[Answer | RequestRefused], truth: np.ndarray) -> float:
        """Learn `calibration` on held-out rows of train. Returns their loss after it."""
        raw = self._raw(replies)
        if not self.question.labels:
            self.calibration = {}
            return float(np.abs(raw[:, 0] - truth).mean())
        soft = self.protocol.logprobs
        empty = self._raw(self._ask(self._empty())) if soft and self.shots else None
        self.calibration, loss = learn(raw, truth, self.prior, empty=empty, soft=soft)
        return loss

    def _empty(self) -> Dataset:
        """Rows without content: what the model answers to them is its bias (Zhao et al. 2021, section 5)."""
        fill = {"text": ["N/A", "", "[MASK]"], "category": ["N/A", "", "[MASK]"]}
        types: dict[str, Any] = {"number": pl.Float64, "time": pl.Datetime}
        frame = pl.DataFrame({c.name: pl.Series(c.name, fill.get(c.kind, [None] * 3), dtype=types.get(c.kind, pl.String)) for c in self.schema.features})
        return Dataset(frame, self.schema)

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        replies = self._ask(asked)
        given = [r for r in replies if isinstance(r, Answer)]
        self.facts["tokens_in_per_row"] = sum(r.tokens_in for r in given) / len(asked)
        self.facts["tokens_out_per_row"] = sum(r.tokens_out for r in given) / len(asked)
        if (money := money_of(self.params, self.facts["tokens_in_per_row"], self.facts["tokens_out_per_row"])) is not None:
            self.facts["money_per_row"] = money
        if given:
            milliseconds = np.array([r.seconds for r in given]) * 1000
            self.facts |= {"latency_ms": float(np.median(milliseconds)), "latency_p95_ms": float(np.quantile(milliseconds, 0.95))}
        raw = self._raw(replies)
        return calibrated(raw, self.prior, self.calibration) if self.question.labels else raw

    # ---- a recipe on disk: what is asked of whom, never a key

    def dump(self, folder: Path) -> None:
        recipe = {
            "prompt_version": VERSION, "url": self.params["url"], "model": self.params["model"], "question": asdict(self.question),
            "protocol": asdict(self.protocol), "seed": self.seed, "characters": self.characters, "shots": self.shots,
            "prior": self.prior.tolist(), "calibration": self.calibration, "pool_answers": self.pool_answers,
        }
        (folder / "recipe.json").write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")
        if self.pool is not None:
            self.pool.frame.write_parquet(folder / "pool.parquet")

    def load(self, folder: Path) -> LLM:
        recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        if recipe["prompt_version"] > VERSION:
            raise InputError("This model's prompt has version {found}, made by a newer assay; this one knows up to {known}.",
                             found=recipe["prompt_version"], known=VERSION)
        self.params |= {"url": recipe["url"], "model": recipe["model"]}
        packed = recipe["question"]
        self.question = Question(packed["target"], packed["lang"], tuple(packed["labels"]), tuple(packed["span"]))
        self.protocol = Protocol(**recipe["protocol"])
        self.seed, self.characters, self.calibration = recipe["seed"], recipe["characters"], recipe["calibration"]
        self.shots = [(text, answer) for text, answer in recipe["shots"]]
        self.prior, self.pool_answers = np.array(recipe["prior"]), recipe["pool_answers"]
        if (folder / "pool.parquet").exists():
            self.pool = Dataset(pl.read_parquet(folder / "pool.parquet"), self.schema)
        return self


def _affordable(plans: dict[str, tuple[int, float]], held: int, seconds: float) -> tuple[int, list[str]]:
    """(held-out rows, kinds of shots to compare on them). Comparing is dropped where it would leave too few rows."""
    def rows(kinds: list[str]) -> int:
        each = sum(1 / plans[k][1] for k in kinds)
        return next((m for m in HELD_ROWS if m <= held and m * each <= seconds), 0)

    first = list(plans)[:1]
    return (rows(list(plans)), list(plans)) if rows(list(plans)) >= min(16, rows(first)) else (rows(first), first)


def _prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    found = endpoint_of(case)
    return found if isinstance(found, Text) else found | {"lang": "zh" if any(c.language == "zh" for c in schema.of_kind("text")) else "en"}


llm = Candidate(
    name="llm", rung="llm", tasks=("classify", "regress"), build=LLM, prepare=_prepare, online=True, share=10.0, valid_rows=100,
    source="https://platform.openai.com/docs/api-reference/chat", licence="that of the model behind the endpoint",
    version=f"prompt {VERSION}",
)
