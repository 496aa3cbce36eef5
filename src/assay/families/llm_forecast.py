"""A large language model behind an OpenAI-compatible endpoint, shown a series as whole numbers and asked to go on (LLMTime, Gruver et al. 2023, arXiv:2310.07820).

It says one way to go on; how far the truth may lie from it is taken from the series' own steps from one season to the next.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.data.history import History, histories
from assay.errors import EndpointError, InputError
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.neural.answers import Answers
from assay.neural.chat import Answer, Chat, NoTimeLeft, RequestRefused
from assay.neural.endpoint import endpoint_of, money_of, trust, trusted
from assay.neural.forecast_levels import of_few
from assay.neural.prompt import Protocol
from assay.words import Text, say

VERSION = 1
LOW, HIGH = 100, 900  # the whole numbers that a series' shown range becomes: three digits are one token in most vocabularies
MOST_SHOWN = 400  # numbers
PROBES, FIRST = 3, 8
ENOUGH = 0.75  # share of the horizon that an answer must have; the rest repeats its last season
THINKING = 4096
SYSTEM = "You continue series of numbers. Look for the level, the trend and the repeating pattern, then say only how the series goes on."
ASK = {True: 'Answer with JSON: {{"values": [exactly {horizon} whole numbers]}}.', False: "Answer with exactly {horizon} whole numbers in square brackets, and nothing else."}


class LLMForecast(Model):
    """params: url, model, price_in, price_out (per million tokens)."""

    task: Any
    protocol: Protocol
    seed = 0

    def __init__(self, task: Any, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.protocol = Protocol(logprobs=False)
        self._chat: Chat | None = None
        self._until = float("inf")
        self._counted: set[str] = set()

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> LLMForecast:
        """Nothing is learnt: what the endpoint supports is found out, and whether it is fast enough."""
        trust(self.params["url"])
        self.seed, self._until = seed, budget.started + budget.seconds
        self._chat = Chat(self.params["url"], self.params["model"], answers=Answers(), timeout_s=min(120.0, max(5.0, budget.seconds / 3)))
        probes = sorted(histories(train.take(np.arange(min(len(train), 200)))), key=lambda one: -len(one.values))[:PROBES]
        try:
            self._negotiate(probes[0])
            replies = [reply for reply in self._ask(probes) if isinstance(reply, Answer)]
        except NoTimeLeft as late:
            raise TooSlow(late.text) from None
        finally:
            self._until = float("inf")
        if not replies:
            raise EndpointError("The endpoint of '{model}' refuses every row.", model=self.params["model"])
        pace = self._chat.parallel / max(1e-4, float(np.mean([reply.seconds for reply in replies])))
        if budget.predict_rows > pace * budget.predict_seconds:
            raise TooSlow(say("{rows} rows would take about {seconds} s at {pace} rows a second; there are {allowed} s", rows=budget.predict_rows,
                              seconds=round(budget.predict_rows / pace), pace=round(pace, 3), allowed=round(budget.predict_seconds, 1)))
        self.facts |= {"rows_per_s": round(pace, 3), "constrained": self.protocol.schema, "prompt_version": VERSION}
        for key in ("requests", "tokens_in", "tokens_out", "money"):
            if key in self.facts:
                self.facts[f"fit_{key}"] = self.facts[key]
        return self

    def _negotiate(self, one: History) -> None:
        """Give up what the endpoint does not support until it answers."""
        for _ in range(10):
            reply = self._ask([one], keep_refusals=True)[0]
            if isinstance(reply, RequestRefused):
                weaker = None if reply.too_long else self.protocol.without(reply.detail)
                if weaker is None:
                    raise reply
                self.protocol = weaker
            elif not self.protocol.thinks and numbers_in(reply.text) is None and ("<think>" in reply.text or not reply.text.strip()):
                self.protocol = Protocol(**(asdict(self.protocol) | {"thinks": True}))
            else:
                return
        raise EndpointError("The endpoint of '{model}' gave no answer to any form of the question.", model=self.params["model"])

    # ---- asking

    def _shown(self, one: History) -> np.ndarray:
        """The last steps, without gaps: some seasons and horizons."""
        filled = one.filled()
        return filled[-min(MOST_SHOWN, max(5 * self.task.season, 3 * self.task.horizon, 60)) :]

    def _body(self, one: History) -> dict[str, Any]:
        shown, horizon = self._shown(one), self.task.horizon
        low, step = scale_for(shown)
        numbers = ", ".join(str(round((v - low) / step + LOW)) for v in shown)
        every = f" Each number is a step of {self.task.frequency}." if self.task.frequency else ""
        season = f" The pattern may repeat after {self.task.season} numbers." if self.task.season > 1 else ""
        asked = f"{numbers}\n\nHow do the next {horizon} numbers go?{every}{season} " + ASK[self.protocol.schema].format(horizon=horizon)
        body: dict[str, Any] = {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}],
                                "max_completion_tokens" if self.protocol.completion_tokens else "max_tokens": 32 + 6 * horizon + THINKING * self.protocol.thinks}
        if self.protocol.temperature:
            body["temperature"] = 0
        if self.protocol.seed:
            body["seed"] = self.seed
        if self.protocol.schema:
            values = {"type": "array", "items": {"type": "integer"}}
            schema = {"type": "object", "properties": {"values": values}, "required": ["values"], "additionalProperties": False}
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        return body

    def _ask(self, asked: list[History], *, keep_refusals: bool = False) -> list[Answer | RequestRefused]:
        if self._chat is None:
            trusted(self.params["url"])
            self._chat = Chat(self.params["url"], self.params["model"], answers=Answers())
        bodies = [self._body(one) for one in asked]
        first = self._chat.ask(bodies[:FIRST], keep_refusals=keep_refusals, until=self._until)
        self._count(first)
        bad = [reply for reply in first if self._numbers(reply) is None]
        if len(first) >= FIRST and len(bad) > len(first) / 2:
            example = bad[0].detail if isinstance(bad[0], RequestRefused) else bad[0].text[:80]
            raise EndpointError("The model '{model}' gave no usable answer to {bad} of the first {n} rows; it said, for example: {example}",
                                model=self.params["model"], bad=len(bad), n=len(first), example=example)
        later = self._chat.ask(bodies[FIRST:], until=self._until)
        self._count(later)
        return first + later

    def _numbers(self, reply: Answer | RequestRefused) -> np.ndarray | None:
        """(horizon,) as the model said them, None if it did not say enough."""
        found = None if isinstance(reply, RequestRefused) else numbers_in(reply.text)
        horizon, season = self.task.horizon, max(1, self.task.season)
        if found is None or len(found) < max(1, ENOUGH * horizon):
            return None
        while len(found) < horizon:
            found = np.concatenate([found, found[-min(season, len(found)) :]])
        return found[:horizon]

    def _count(self, replies: list[Answer | RequestRefused]) -> None:
        """Add replies to the facts. A question asked again by this same model costs nothing; one found on disk did cost."""
        facts = self.facts
        for key in ("requests", "cached", "unparsed", "refused", "tokens_in", "tokens_out", "seconds_asked"):
            facts.setdefault(key, 0)
        for reply in replies:
            if isinstance(reply, RequestRefused):
                facts["refused"] += 1
            elif reply.question not in self._counted:
                self._counted.add(reply.question)
                facts["cached" if reply.cached else "requests"] += 1
                facts["unparsed"] += self._numbers(reply) is None
                facts["tokens_in"] += reply.tokens_in
                facts["tokens_out"] += reply.tokens_out
                facts["seconds_asked"] += reply.seconds
                facts["model"] = self.params["model"]
        if (money := money_of(self.params, facts["tokens_in"], facts["tokens_out"])) is not None:
            facts["money"] = money

    # ---- from replies to quantiles

    def predict(self, asked: Dataset) -> np.ndarray:
        series = histories(asked)
        out = np.empty((len(series), self.task.horizon, len(self.task.levels)))
        known = np.array([np.isfinite(one.values).sum() >= 2 for one in series], dtype=bool)
        for i in np.flatnonzero(~known):
            out[i] = of_few(series[i].values, self.task.horizon, self.task.levels)
        replies = self._ask([series[i] for i in np.flatnonzero(known)])
        for i, reply in zip(np.flatnonzero(known), replies, strict=True):
            shown, numbers = self._shown(series[i]), self._numbers(reply)
            low, step = scale_for(shown)
            reach = shown.max() - shown.min()  # a number further out than the shown range is wide is held there: one slip of digits decides nothing
            point = repeated(shown, self.task.horizon, self.task.season) if numbers is None else np.clip((numbers - LOW) * step + low, shown.min() - reach, shown.max() + reach)
            out[i] = point[:, None] + spread_of(series[i].filled(), self.task.horizon, self.task.season, self.task.levels)
        given = [reply for reply in replies if isinstance(reply, Answer)]
        if given:
            each = {f"{key}_per_row": sum(getattr(reply, key) for reply in given) / len(series) for key in ("tokens_in", "tokens_out")}
            milliseconds = np.array([reply.seconds for reply in given]) * 1000
            self.facts |= each | {"latency_ms": float(np.median(milliseconds)), "latency_p95_ms": float(np.quantile(milliseconds, 0.95))}
            if (money := money_of(self.params, each["tokens_in_per_row"], each["tokens_out_per_row"])) is not None:
                self.facts["money_per_row"] = money
        return out.reshape(len(series), self.task.width)

    def dump(self, folder: Path) -> None:
        """What is asked of whom, never a key."""
        folder.mkdir(parents=True, exist_ok=True)
        recipe = {"prompt_version": VERSION, "url": self.params["url"], "model": self.params["model"], "protocol": asdict(self.protocol), "seed": self.seed}
        (folder / "recipe.json").write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> LLMForecast:
        recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        if recipe["prompt_version"] > VERSION:
            raise InputError("This model's prompt has version {found}, made by a newer assay; this one knows up to {known}.", found=recipe["prompt_version"], known=VERSION)
        self.params |= {"url": recipe["url"], "model": recipe["model"]}
        self.protocol, self.seed = Protocol(**recipe["protocol"]), recipe["seed"]
        return self


def scale_for(shown: np.ndarray) -> tuple[float, float]:
    """(low, step): low becomes `LOW`, and a step one whole number."""
    low, high = float(shown.min()), float(shown.max())
    return low, (high - low) / (HIGH - LOW) or 1.0


def numbers_in(text: str) -> np.ndarray | None:
    """The last list of numbers in an answer, whatever is around it; None if there is none."""
    for inside in reversed(re.findall(r"\[([^\[\]]*)\]", text.rpartition("</think>")[2])):
        try:
            found = np.array([float(word) for word in re.split(r"[,;\s]+", inside.strip()) if word])
        except ValueError:
            continue
        if len(found) and np.isfinite(found).all():
            return found
    return None


def repeated(shown: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """(horizon,): the last season again and again."""
    return np.resize(shown[-min(max(1, season), len(shown)) :], horizon)


def spread_of(values: np.ndarray, horizon: int, season: int, levels: tuple[float, ...]) -> np.ndarray:
    """(horizon, levels): how far values so many whole seasons apart lay from each other, around their median."""
    out = np.zeros((horizon, len(levels)))
    for step in range(horizon):
        lag = (step // max(1, season) + 1) * max(1, season)
        lag = next((n for n in (lag, season, 1) if len(values) >= n + 4), 0)
        if lag:
            apart = values[lag:] - values[:-lag]
            out[step] = np.quantile(apart, levels) - np.median(apart)
    return out


def _prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    return endpoint_of(case)


llm_forecast = Candidate(
    name="llm_forecast", rung="llm", tasks=("forecast",), build=LLMForecast, prepare=_prepare, reads=("sequence",), requires=("sequence",), online=True, share=10.0, valid_rows=60,
    source="LLMTime (Gruver et al. 2023, arXiv:2310.07820)", licence="that of the model behind the endpoint", version=f"prompt {VERSION}",
)
