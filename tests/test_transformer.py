"""transformer: padding changes nothing, positions count, and one family reads sequences, pictures and texts."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data import media
from assay.data.dataset import Column, Dataset, Schema
from assay.families.base import Budget
from assay.families.transformer import CANDIDATE, TEXT
from assay.neural.ragged import Ragged
from assay.neural.text_rows import Texts
from assay.neural.vocabulary import UNKNOWN, Vocabulary
from assay.tasks import find

torch = pytest.importorskip("torch")
SMALL = {"width": 32, "depth": 1, "batch": 16, "rate": 4e-3}


def sizes_of(**others):
    same = {"reads": "steps", "channels": 3, "width": 64, "depth": 2, "strides": (2,), "wider": 2, "dropout": 0.1, "path": 0.1, "outputs": 2}
    return same | others


def table(cells, target, kind):
    frame = pl.DataFrame({"x": pl.Series(cells, dtype=pl.String if kind == "text" else pl.Binary), "y": target})
    return Dataset(frame, Schema((Column("x", kind, channels=("v",) if kind == "sequence" else None), Column("y", "category")), target="y"))


def fitted(data, *, card=CANDIDATE, passes=None, seed=0, **params):
    task = find("classify").of(data)
    return card.build(task, data.schema, **SMALL | params).fit(data, seed=seed, budget=Budget(seconds=float("inf"), passes=passes))


def hits(model, data):
    return float((model.predict(data.asked()).argmax(axis=1) == model.task.truth(data)).mean())


@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=5), strides=st.sampled_from([(1,), (2, 2)]), reads=st.sampled_from(["steps", "pieces"]))
def test_a_padded_row_answers_as_it_would_alone(lengths, strides, reads):
    from assay.neural.attention import transformer

    torch.manual_seed(0)
    network = transformer(sizes_of(strides=strides, reads=reads, vocabulary=50)).eval()
    rng = np.random.default_rng(sum(lengths))
    rows = [rng.standard_normal((n, 3)).astype(np.float32) if reads == "steps" else rng.integers(1, 50, n) for n in lengths]
    read = Ragged.of(rows, rows[0][:0])
    with torch.no_grad():
        together = network(*map(torch.from_numpy, read.padded(np.arange(len(lengths)))))
        alone = torch.cat([network(*map(torch.from_numpy, read.padded(np.array([i])))) for i in range(len(lengths))])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_exported_network_answers_like_torch_at_any_length_and_number_of_rows():
    from assay.neural.attention import transformer
    from assay.neural.export import Session, exported

    torch.manual_seed(1)
    network = transformer(sizes_of(reads="pieces", vocabulary=50)).eval()
    onnx = exported(network, (torch.randint(0, 50, (2, 9)), torch.tensor([9, 4])), ("steps", "lengths"), long=("steps",))
    for n, longest in ((1, 1), (1, 23), (5, 40)):
        x, lengths = torch.randint(0, 50, (n, longest)), torch.randint(1, longest + 1, (n,))
        with torch.no_grad():
            wanted = network(x, lengths).numpy()
        assert np.abs(Session(onnx, 1).run(steps=x.numpy(), lengths=lengths.numpy()) - wanted).max() < 1e-4


def test_turning_the_order_of_pieces_changes_the_answer():
    """Without positions, attention sees a bag."""
    from assay.neural.attention import transformer

    torch.manual_seed(0)
    network = transformer(sizes_of(reads="pieces", vocabulary=50)).eval()
    x = torch.randint(1, 50, (1, 12))
    with torch.no_grad():
        gap = (network(x, torch.tensor([12])) - network(x.flip(1), torch.tensor([12]))).abs().max()
    assert gap > 1e-5


def test_it_learns_which_of_two_bumps_comes_first():
    def bumps(n, seed):
        rng = np.random.default_rng(seed)
        rows, target = [], []
        for _ in range(n):
            row = 0.1 * rng.standard_normal((int(rng.integers(16, 28)), 1))
            first, second = sorted(rng.choice(np.arange(2, len(row) - 4, 4), 2, replace=False))
            up = bool(rng.random() < 0.5)
            row[first : first + 3] += 2 if up else -2
            row[second : second + 3] -= 2 if up else -2
            rows.append(media.packed(row))
            target.append("up first" if up else "down first")
        return table(rows, target, "sequence")

    assert hits(fitted(bumps(120, 0), passes=25), bumps(80, 1)) > 0.9


def pictures(n, seed=0):
    """The answer is on which side the bright square is; mirrored, it would be the other."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    cells, target = [], []
    for _ in range(n):
        left = bool(rng.random() < 0.5)
        pixels = rng.integers(0, 60, (20, 20), dtype=np.uint8)
        top, at = int(rng.integers(2, 13)), int(rng.integers(1, 4)) if left else int(rng.integers(12, 15))
        pixels[top : top + 5, at : at + 5] += 180
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        cells.append(file.getvalue())
        target.append("left" if left else "right")
    return table(cells, target, "image")


def test_pictures_are_read_as_patches_and_not_mirrored_where_that_turns_the_answer_round(tmp_path):
    data, test = pictures(120), pictures(60, seed=1)
    model = fitted(data, passes=15)
    assert hits(model, test) > 0.9
    assert model.facts["input"]["flip"] == "none"
    model.dump(tmp_path)
    loaded = CANDIDATE.build(model.task, data.schema).load(tmp_path)
    assert np.array_equal(loaded.predict(test.asked()), model.predict(test.asked()))
    assert np.allclose(loaded.predict_row(test.asked().frame.row(0, named=True)), model.predict(test.asked())[:1], atol=1e-5)


def texts(n, seed=0):
    rng = np.random.default_rng(seed)
    things = ["the parcel", "this phone", "our driver", "the soup"]
    rows = []
    for _ in range(n):
        good = bool(rng.random() < 0.5)
        rows.append((f"{rng.choice(things)} was {rng.choice(['great', 'lovely', 'fast'] if good else ['late', 'cold', 'broken'])}", "good" if good else "bad"))
    return table([text for text, _ in rows], [y for _, y in rows], "text")


def test_texts_are_learnt_and_unknown_or_absent_ones_are_answered(tmp_path):
    data = texts(120)
    model = fitted(data, card=TEXT, passes=20)
    assert hits(model, texts(60, seed=1)) > 0.95
    odd = Dataset(pl.DataFrame({"x": [None, "从来没有见过 🚚\x00", "   ", "word " * 5000]}), data.schema.without_target())
    answer = model.predict(odd)
    assert answer.shape == (4, 2)
    assert np.allclose(answer.sum(axis=1), 1)
    model.dump(tmp_path)
    loaded = TEXT.build(model.task, data.schema).load(tmp_path)
    assert np.array_equal(loaded.predict(odd), answer)
    assert np.allclose(loaded.predict_row({"x": "the soup was cold"}), loaded.predict(table(["the soup was cold"], ["bad"], "text").asked()), atol=1e-5)


def test_the_same_seed_gives_the_same_bytes():
    data = texts(60)
    one = fitted(data, card=TEXT, passes=3, seed=5)
    again = fitted(data, card=TEXT, passes=3, seed=5)
    assert again.served.onnx == one.served.onnx
    assert again.served.reader.json() == one.served.reader.json()
    assert one.facts == again.facts


def test_the_size_follows_the_rows_and_says_why():
    few = fitted(texts(60), card=TEXT, passes=1)
    assert few.facts["architecture"]["reason"]["text"] == "the size that was asked for"
    task = find("classify").of(texts(60))
    model = TEXT.build(task, texts(60).schema, batch=16).fit(texts(60), seed=0, budget=Budget(seconds=float("inf"), passes=1))
    assert "without a clock" in model.facts["architecture"]["reason"]["text"]
    assert model.facts["architecture"]["width"] % 32 == 0


def test_the_vocabulary_of_the_same_texts_is_the_same_and_splits_what_it_has_not_seen():
    said = [f"the number {i} was printed on paper {'很快送到味道不错' if i % 3 else '没有送到'}" for i in range(300)] + ["ẞ rare ж"]
    one, again = Vocabulary.learn(said), Vocabulary.learn(said)
    assert one.json() == again.json()
    (printed,), (wrong,), (strange,) = one.ids(["printed"]), one.ids(["pritned"]), one.ids(["ж"])
    assert len(printed) == 1
    assert len(wrong) > 1
    assert UNKNOWN in strange
    assert [len(ids) for ids in Vocabulary.of(one.json()).ids(["", "printed"])][1] == 1
    assert len(one.ids([""])[0]) >= 1


def test_chinese_without_often_repeated_words_is_read_by_characters():
    rng = np.random.default_rng(0)
    signs = [chr(0x4E00 + i) for i in range(400)]
    data = table(["".join(rng.choice(signs, 20)) for _ in range(200)], ["a", "b"] * 100, "text")
    reader = Texts.learn(data)
    assert reader.facts()["units"] == "characters"
    english = Texts.learn(texts(200))
    assert english.facts()["units"] == "pieces of words"


def test_a_long_text_keeps_its_beginning_and_its_end():
    words = [f"w{i:03d}x" for i in range(40)]
    data = table([" ".join(words[:10])] * 60 + [" ".join(words)], ["a", "b"] * 30 + ["a"], "text")
    reader = Texts.learn(data)
    read, whole = reader.read(data).row(60), reader.vocabulary.ids([" ".join(words)])[0]
    assert len(read) == reader.most < len(whole)
    assert read[0] == whole[0]
    assert read[-1] == whole[-1]
