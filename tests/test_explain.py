"""What answers rest on: what is added adds up, the planted cause is found, and covering stays where a network cannot be looked into."""

import importlib
import importlib.util
import io
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data import media
from assay.data.dataset import Column, Dataset, Schema
from assay.explain import grounds, occlusion
from assay.explain.examples import examples
from assay.families import convnet_steps, recurrent, transformer
from assay.families.base import Budget
from assay.neural import gradients, places, replay
from assay.neural.export import Session, exported
from assay.neural.sequence_rows import Signals
from assay.neural.text_rows import Texts
from assay.neural.vocabulary import HIDDEN, Vocabulary
from assay.tasks.classify import Classify
from assay.words import say

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

SIZES = {"channels": 3, "vocabulary": 50, "width": 32, "hidden": 32, "depth": 2, "wider": 2, "dropout": 0.1, "path": 0.1, "outputs": 3, "both": True, "planar": False,
         "strides": (2,), "pooling": "concat", "cell": "lstm", "halvings": 1, "tokens": 64}
KINDS = {"lstm": ("recurrence", "recurrent", {"reads": "steps"}), "gru": ("recurrence", "recurrent", {"reads": "pieces", "cell": "gru", "pooling": "attention"}),
         "transformer": ("attention", "transformer", {"reads": "pieces"}), "over time": ("attention", "transformer", {"reads": "steps"}),
         "patches": ("attention", "transformer", {"reads": "picture"}), "convolution": ("step_convolution", "convolution", {"reads": "steps"}),
         "spectrogram": ("step_convolution", "convolution", {"reads": "steps", "planar": True, "widths": [8, 16]})}
WORDS = ["the", "pump", "ran", "again", "while", "shift", "two", "checked", "valve", "seven", "and", "noted", "all", "of", "it", "in", "book", "nine"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(kind, seed=0, sure=8.0, **more):
    """An untaught network and its ONNX file; sure: how steep its answers are."""
    module, name, own = KINDS[kind]
    torch.manual_seed(seed)
    sizes = SIZES | own | more
    made = getattr(importlib.import_module(f"assay.neural.{module}"), name)(sizes).eval()
    with torch.no_grad():
        (made.body if sizes["planar"] else made).head.weight *= sure
    if sizes["reads"] == "picture":
        return made, exported(made, (torch.randn(2, 3, 16, 16),), ("x",))
    x = torch.randn(2, 9, 3) if sizes["reads"] == "steps" else torch.randint(0, 50, (2, 9))
    return made, exported(made, (x, torch.tensor([9, 9 if sizes["planar"] else 4])), ("steps", "lengths"), long=("steps",))


def row_of(kind, rng, length=12):
    if KINDS[kind][2]["reads"] == "picture":
        return {"x": torch.from_numpy(rng.standard_normal((1, 3, 16, 16)).astype(np.float32))}
    if KINDS[kind][2]["reads"] == "pieces":
        return {"steps": torch.from_numpy(rng.integers(3, 50, (1, length))), "lengths": torch.tensor([length])}
    return {"steps": torch.from_numpy(rng.standard_normal((1, length, 3)).cumsum(1).astype(np.float32)), "lengths": torch.tensor([length])}


def table(cells, target, kind):
    frame = pl.DataFrame({"x": pl.Series(cells, dtype=pl.String if kind == "text" else pl.Binary), "y": target})
    return Dataset(frame, Schema((Column("x", kind, channels=("speed", "load") if kind == "sequence" else None), Column("y", "category")), target="y"))


def fitted(card, data, passes, **params):
    model = card.build(Classify.of(data), data.schema, **params)
    return model.fit(data, seed=0, budget=Budget(seconds=float("inf"), passes=passes, threads=1))


def notes(n=120):
    """One word of ten says which label it is."""
    rng = np.random.default_rng(0)
    texts = []
    for i in range(n):
        words = list(rng.permutation(WORDS)[:9])
        words.insert(int(rng.integers(0, 9)), "leaking" if i % 2 else "normal")
        texts.append(" ".join(words))
    return table(texts, ["bad" if i % 2 else "ok" for i in range(n)], "text")


# ---- the network run again


@settings(max_examples=6)
@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 99), length=st.integers(1, 20))
def test_a_network_that_is_run_again_answers_as_its_file_does(kind, seed, length):
    _, onnx = network(kind, seed)
    row = row_of(kind, np.random.default_rng(seed), 9 if kind == "spectrogram" else length)
    again = replay.opened(onnx)
    with torch.no_grad():
        said = again.run(row)[again.output].numpy()
    assert np.abs(said - Session(onnx, 1).run(**{k: v.numpy() for k, v in row.items()})).max() < 1e-4


def test_a_network_with_an_operator_unknown_here_cannot_be_looked_into():
    import onnx
    from onnx import helper

    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "x"], ["said"])], "whole",
                              [helper.make_tensor_value_info("x", onnx.TensorProto.INT8, [2, 2])], [helper.make_tensor_value_info("said", onnx.TensorProto.INT32, [2, 2])])
    assert replay.opened(helper.make_model(graph).SerializeToString()) is None


# ---- integrated gradients


@settings(max_examples=8)
@given(kind=st.sampled_from(["lstm", "gru", "transformer", "over time", "patches", "convolution"]), seed=st.integers(0, 99), length=st.integers(2, 30))
def test_what_is_added_adds_up_to_the_change_of_the_answer_within_64_gradients(kind, seed, length):
    _, onnx = network(kind, seed)
    again, row = replay.opened(onnx), row_of(kind, np.random.default_rng(seed), length)
    name = again.inputs[0]
    x, base = row[name][0].numpy(), np.zeros_like(row[name][0].numpy())
    if KINDS[kind][2]["reads"] == "pieces":
        name, weights = again.embedding(name)
        x, base = weights.numpy()[x], np.broadcast_to(weights.numpy()[HIDDEN], (length, weights.shape[1]))
    score = gradients.scored(again, row, name, lambda said: said.softmax(1)[:, 0])
    found = gradients.integrated(score, x, base, steps=64)
    assert found.values.shape == x.shape
    assert abs(found.values.sum() - (found.said - found.base)) <= max(0.05 * abs(found.said - found.base), 0.002)
    with torch.no_grad():
        assert found.said == pytest.approx(float(score(torch.from_numpy(x)[None])[0]), abs=1e-6)
        assert found.base == pytest.approx(float(score(torch.from_numpy(base.copy())[None])[0]), abs=1e-6)


@settings(max_examples=20)
@given(weights=st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4), seed=st.integers(0, 99))
def test_a_line_is_explained_exactly_and_what_does_not_differ_adds_nothing(weights, seed):
    rng, weights = np.random.default_rng(seed), np.array(weights, dtype=np.float32)
    x, base = rng.standard_normal((2, 4)).astype(np.float32)
    base[1] = x[1]
    found = gradients.integrated(lambda many: many @ torch.from_numpy(weights), x, base, steps=16)
    assert np.allclose(found.values, weights * (x - base), atol=1e-5)
    assert found.values[1] == 0


def test_a_jump_close_to_the_baseline_is_not_missed():
    """A norm of a vector near zero: all that happens, happens in the first thousandth of the way."""
    x = np.array([3.0, 4.0], dtype=np.float32)
    found = gradients.integrated(lambda many: many[:, 0] / (many.pow(2).sum(1) + 1e-4).sqrt(), x, np.zeros(2, dtype=np.float32), steps=64)
    assert found.values.sum() == pytest.approx(0.6, abs=0.03)


def test_integrated_gradients_are_those_of_captum():
    attr = pytest.importorskip("captum.attr")
    made, onnx = network("over time", seed=3)
    row, again = row_of("over time", np.random.default_rng(3), 14), replay.opened(onnx)
    theirs = attr.IntegratedGradients(lambda x: made(x, row["lengths"].expand(len(x))).softmax(1)).attribute(row["steps"], target=1, n_steps=200, internal_batch_size=50)
    x = row["steps"][0].numpy()
    ours = gradients.integrated(gradients.scored(again, row, "steps", lambda said: said.softmax(1)[:, 1]), x, np.zeros_like(x), steps=256)
    assert np.abs(ours.values - theirs[0].numpy()).max() < 0.05 * np.abs(theirs.numpy()).max()


# ---- attention


@pytest.mark.parametrize("kind", ["transformer", "over time", "patches"])
def test_attention_is_a_share_for_each_token_and_even_where_all_tokens_are_alike(kind):
    made, onnx = network(kind)
    row = row_of(kind, np.random.default_rng(0))
    tokens = 64 if kind == "patches" else 6 if kind == "over time" else 12
    weights = gradients.rollout(replay.opened(onnx), row)
    assert weights.shape == (tokens,)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert weights.std() > 1e-4
    with torch.no_grad():
        for block in made.blocks:
            block.asks.weight.zero_()  # nobody asks for anything in particular
        made.pooling.score.weight.zero_()
    given_ = tuple(value.repeat(2, *[1] * (value.ndim - 1)) for value in row.values())
    even = gradients.rollout(replay.opened(exported(made, given_, tuple(row), long=() if kind == "patches" else ("steps",))), row)
    assert np.allclose(even, 1 / tokens, atol=1e-5)


def test_a_network_without_attention_has_no_rollout():
    _, onnx = network("convolution")
    assert gradients.rollout(replay.opened(onnx), row_of("convolution", np.random.default_rng(0))) is None


# ---- from the network back to the cell


@settings(max_examples=30)
@given(texts=st.lists(st.text(alphabet="abé 你好。\n\t,", max_size=40), min_size=2, max_size=2), most=st.integers(2, 12))
def test_pieces_are_those_that_the_network_reads_and_lie_within_their_cell(texts, most):
    reader = Texts(["one", "two"], Vocabulary.learn(["ab é 你好。 a,b"] * 30), most, {})
    frame = pl.DataFrame(dict(zip(("one", "two"), texts, strict=True)))
    ids, spans = places.of_pieces(reader, frame, "two")
    read = reader.read(Dataset(frame, Schema((Column("one", "text"), Column("two", "text")))), threads=1)
    assert ids.tolist() == read.row(0).tolist()
    assert (spans >= 0).all()
    assert (spans <= len(texts[1])).all()
    assert (spans[:, 0] <= spans[:, 1]).all()


@settings(max_examples=30)
@given(text=st.text(alphabet="ab 你好,\n", min_size=1, max_size=60), seed=st.integers(0, 99))
def test_pieces_share_what_stands_at_their_characters_and_lose_nothing(text, seed):
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, len(text) + 1, 5))
    spans, values = np.stack([cuts[:-1], cuts[1:]], axis=1), rng.standard_normal(4)
    pieces = occlusion.pieces_of(text)
    shared = grounds.shared(text, pieces, spans, values)
    assert shared.shape == (len(pieces),)
    assert shared.sum() == pytest.approx(values[spans[:, 1] > spans[:, 0]].sum())


def test_a_blank_before_a_word_belongs_to_that_word():
    assert grounds.shared("a bc", ["a ", "bc"], np.array([[0, 1], [1, 4]]), np.array([1.0, 2.0])).tolist() == [1.0, 2.0]


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 70), min_size=2, max_size=2), every=st.integers(1, 4), gaps=st.lists(st.booleans(), min_size=3, max_size=3),
       level=st.lists(st.booleans(), min_size=3, max_size=3))
def test_numbers_go_back_to_the_steps_that_they_were_read_from_and_the_sum_stays(lengths, every, gaps, level):
    gaps, level = np.array(gaps), np.array(level)
    reader = Signals([("one", 2), ("two", 1)], ["a", "b", "c"], every, 12, np.zeros(3), np.ones(3), np.ones(3), gaps, level, False)
    rng = np.random.default_rng(sum(lengths))
    cells = {name: [media.packed(rng.standard_normal((n, width)).astype(np.float32))] for (name, width), n in zip(reader.columns, lengths, strict=True)}
    frame = pl.DataFrame({name: pl.Series(name, cell, dtype=pl.Binary) for name, cell in cells.items()})
    read = reader.read(Dataset(frame, Schema((Column("one", "sequence", channels=("a", "b")), Column("two", "sequence", channels=("c",))))))
    values = rng.standard_normal(read.row(0).shape)
    values[:, ~np.array([True, True, False, *np.isin(np.flatnonzero(level), (0, 1)), *np.isin(np.flatnonzero(gaps), (0, 1))])] = 0
    steps = read.lengths[0] * every
    back = places.of_numbers(reader, frame, "one", values)
    assert back.shape == (lengths[0], 2)
    if lengths[0] >= lengths[1]:  # a shorter one has no steps where only the other has some
        assert back.sum() == pytest.approx(values.sum())
    assert not back[: max(0, lengths[0] - steps)].any()
    assert grounds.summed(back).sum() == pytest.approx(back.sum())


@given(length=st.integers(1, 200), strides=st.integers(0, 4))
@settings(max_examples=30)
def test_what_stands_at_shortened_steps_is_spread_over_them(length, strides):
    tokens = length
    for _ in range(strides):
        tokens = -(-tokens // 2)
    weights = np.random.default_rng(length).random(tokens)
    assert places.of_tokens(weights, length).sum() == pytest.approx(weights.sum())


# ---- the planted cause, end to end


@pytest.fixture(scope="module")
def told():
    data = notes()
    return data, fitted(transformer.TEXT, data, 10, width=32, depth=1)


def test_the_word_that_decides_is_found_and_words_add_up_to_the_answer(told):
    data, model = told
    rows = data.take(np.arange(10)).asked()
    said = model.predict(rows)
    codes = said.argmax(axis=1)
    found, method = grounds.words(model, rows, "x", codes)
    assert str(method) == "integrated gradients"
    best = [max(row, key=lambda one: one[1])[0].strip() for row in found]
    assert sum(word in ("leaking", "normal") for word in best) >= 9
    for i, row in enumerate(found):
        assert "".join(piece for piece, _ in row) == rows.frame["x"][i]
        ids = np.full((1, len(places.of_pieces(model.served.reader, rows.frame[i], "x")[0])), HIDDEN)
        raw = model.served.session(1).run(steps=ids, lengths=np.array([ids.shape[1]]))
        nothing = float(model.served.scale.finished(raw)[0, codes[i]])
        assert sum(value for _, value in row) == pytest.approx(said[i, codes[i]] - nothing, abs=max(0.003, 0.05 * abs(said[i, codes[i]] - nothing)))


def test_rows_to_look_at_say_how_they_were_explained_and_where_a_transformer_looks(told):
    data, model = told
    said = model.predict(data.asked())
    task = Classify.of(data)
    out = json.loads(json.dumps(examples(task, model, data, said, task.losses(data, data, said), seed=0)))
    assert out["method"] == "integrated gradients"
    assert say(out["method"]).to("zh") == "积分梯度"
    for cell in out["explained"]:
        assert all(isinstance(word, str) and isinstance(value, float) for word, value in cell["words"])
        assert len(cell["attention"]) == len(cell["words"])
        assert sum(cell["attention"]) == pytest.approx(1, abs=0.01)


def test_a_model_from_its_files_is_explained_alike(told, tmp_path):
    data, model = told
    rows, codes = data.take(np.arange(3)).asked(), np.array([0, 1, 0])
    model.dump(tmp_path)
    again = transformer.TEXT.build(model.task, data.schema).load(tmp_path)
    for one, two in zip(model.gradients(rows, "x", codes), again.gradients(rows, "x", codes), strict=True):
        assert np.array_equal(one.spans, two.spans)
        assert np.allclose(one.values, two.values, atol=1e-5)


def test_without_torch_words_are_covered_up_and_the_method_says_so(told, monkeypatch):
    data, model = told
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest))
    rows = data.take(np.arange(4)).asked()
    words, method = grounds.words(model, rows, "x", model.predict(rows).argmax(axis=1))
    assert str(method) == "occlusion"
    assert grounds.seen_words(model, rows, "x") is None
    assert sum(max(row, key=lambda one: one[1])[0].strip() in ("leaking", "normal") for row in words) >= 3


@pytest.mark.parametrize("card", [convnet_steps.CANDIDATE, recurrent.CANDIDATE], ids=lambda card: card.name)
def test_the_stretch_and_the_channel_that_decide_are_found(card):
    rng = np.random.default_rng(0)
    cells, begins = [], rng.integers(0, 40, 100)
    for i, begin in enumerate(begins):
        steps = (0.5 * rng.standard_normal((48, 2))).astype(np.float32)
        if i % 2:
            steps[begin : begin + 8, 1] += 3
        cells.append(media.packed(steps))
    data = table(cells, ["bad" if i % 2 else "ok" for i in range(100)], "sequence")
    model = fitted(card, data, 6, width=32, depth=2 if card is convnet_steps.CANDIDATE else 1)
    chosen = np.arange(1, 20, 2)
    rows = data.take(chosen).asked()
    found, method = grounds.stretches(model, rows, "x", np.zeros(10, dtype=int))  # 'bad' comes before 'ok'
    assert str(method) == "integrated gradients"
    hits = 0
    for adds, begin in zip(found, begins[chosen], strict=True):
        assert adds.shape == (2, occlusion.STRETCHES)
        channel, stretch = np.unravel_index(adds.argmax(), adds.shape)
        hits += bool(channel == 1 and begin - 3 < 3 * stretch < begin + 8)
    assert hits >= 9


def test_the_spot_that_decides_is_found_in_a_picture_and_looked_at():
    from PIL import Image

    rng = np.random.default_rng(0)
    cells, corners = [], rng.integers(0, 2, (90, 2))
    for i, (top, left) in enumerate(8 * corners + 1):
        pixels = rng.integers(60, 120, (16, 16)).astype(np.uint8)
        if i % 2:
            pixels[top : top + 6, left : left + 6] = 250
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        cells.append(file.getvalue())
    data = table(cells, ["bad" if i % 2 else "ok" for i in range(90)], "image")
    model = fitted(transformer.CANDIDATE, data, 20, width=32, depth=1)
    chosen = np.arange(1, 41, 2)
    rows = data.take(chosen).asked()
    maps, method = grounds.heat(model, rows, "x", np.zeros(20, dtype=int))  # 'bad' comes before 'ok'
    assert str(method) == "integrated gradients"
    assert all(m.shape == (8, 8) and 0 <= m.min() <= m.max() <= 1 for m in maps)
    for drawn in (maps, grounds.seen_patches(model, rows, "x")):
        quarters = [m.reshape(2, 4, 2, 4).sum(axis=(1, 3)) for m in drawn]
        assert sum(np.unravel_index(q.argmax(), q.shape) == tuple(c) for q, c in zip(quarters, corners[chosen], strict=True)) >= 18


def test_words_of_a_fine_tuned_model_add_up_and_those_of_another_column_stay_out_of_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    from assay.families import finetune

    data = notes(60)
    frame = data.frame.with_columns(remark=pl.Series([f"it ran {i % 3}" for i in range(60)]))
    data = Dataset(frame, Schema((Column("x", "text", language="en"), Column("remark", "text", language="en"), Column("y", "category")), target="y"))
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(frame["x"].to_list(), trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    config = transformers.BertConfig(vocab_size=200, max_position_embeddings=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = finetune.CANDIDATE.build(Classify.of(data), data.schema, folder=str(tmp_path), mode="probe")
    model.fit(data, seed=0, budget=Budget(seconds=float("inf"), passes=2, threads=1))
    rows = data.take(np.arange(3)).asked()
    said = model.predict(rows)
    codes = said.argmax(axis=1)
    words, method = grounds.words(model, rows, "x", codes)
    assert str(method) == "integrated gradients"
    for i, row in enumerate(words):
        masked = Dataset(rows.frame[i].with_columns(x=pl.lit(" ".join(["[MASK]"] * 10))), rows.schema)
        nothing = float(model.predict(masked)[0, codes[i]])
        assert sum(value for _, value in row) == pytest.approx(said[i, codes[i]] - nothing, abs=max(0.003, 0.05 * abs(said[i, codes[i]] - nothing)))
    assert grounds.words(model, rows, "remark", codes)[0] != words
