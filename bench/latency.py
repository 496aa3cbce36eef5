"""One row through a bundle against the bare library call underneath, in one run on the same rows.

Usage: python bench/latency.py. Limit: 1.5 times the bare call (LightGBM, ONNX Runtime).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from machine import publish

import assay


def median_us(call: Callable[[int], object], n: int = 1000) -> float:
    for i in range(50):
        call(i)
    taken = []
    for i in range(n):
        start = time.perf_counter()
        call(i)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken) * 1e6)


def trees(folder: Path) -> list[tuple]:
    import lightgbm

    rng = np.random.default_rng(0)
    x = rng.normal(size=(8000, 30))
    frame = pl.DataFrame({f"x{i}": x[:, i] for i in range(30)}).with_columns(y=pl.Series(["up" if v > 0 else "down" for v in x[:, 0] * x[:, 1] + x[:, 2]]))
    run = assay.run(frame, target="y", time="40s", candidates=["boosting"], out=folder / "trees")
    bundle = assay.load(run.winner)
    booster = lightgbm.Booster(model_file=str(next((run.folder.path / "models").glob("boosting.*/model/boosting.txt"))))
    rows = frame.drop("y").head(200).to_dicts()
    arrays = [np.array([list(r.values())]) for r in rows]
    bare = median_us(lambda i: booster.predict(arrays[i % 200]))
    one = median_us(lambda i: booster.predict(arrays[i % 200], num_threads=1))
    ours = median_us(lambda i: bundle.predict_one(rows[i % 200]))
    return [("LightGBM, 30 numbers", f"{bare:.0f}", f"{one:.0f}", f"{ours:.0f}", f"{ours / bare:.2f}", f"{ours / one:.2f}")]


def encoder(folder: Path) -> list[tuple]:
    import onnxruntime


    words = ["late", "broken", "thanks", "refund", "lovely", "price", "parcel", "invoice", "card", "transfer"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 12)) for _ in range(600)]
    frame = pl.DataFrame({"text": texts, "y": ["money" if "refund" in t or "price" in t else "other" for t in texts]})
    run = assay.run(frame, target="y", time="90s", candidates=["minilm"], folds=1, out=folder / "encoder")
    bundle = assay.load(run.folder.path / "winner.assay")
    if bundle.candidate.name != "minilm":
        return []
    model_file = next((run.folder.path / "models").glob("minilm.*/model/**/*.onnx"))
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(str(model_file), options)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(next((run.folder.path / "models").glob("minilm.*/model/**/tokenizer.json"))))
    tokenizer.no_padding()
    names = {i.name for i in session.get_inputs()}

    def bare(i: int) -> object:
        found = tokenizer.encode(texts[i % 600])
        feed = {"input_ids": [found.ids], "attention_mask": [found.attention_mask], "token_type_ids": [found.type_ids]}
        return session.run(None, {k: np.array(v, dtype=np.int64) for k, v in feed.items() if k in names})

    base, ours = median_us(bare, 300), median_us(lambda i: bundle.predict_one({"text": texts[i % 600]}), 300)
    return [("MiniLM through ONNX Runtime, 12 words", f"{base:.0f}", "", f"{ours:.0f}", f"{ours / base:.2f}", "")]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = trees(Path(place)) + encoder(Path(place))
    publish("latency", "## One row\n\n`python bench/latency.py`: median microseconds of one row, a dictionary in and the answer with its probabilities out, "
            "against the bare call on a ready array (LightGBM: `Booster.predict` with its default threads, and with one thread) or on a ready text "
            "(tokenizer + `InferenceSession.run`).",
            ["model", "bare us", "bare, 1 thread us", "bundle us", "bundle / bare", "bundle / bare, 1 thread"], found)
