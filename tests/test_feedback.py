"""Labels from files: once however often they are imported, joined late, refused with a sentence; and the way to annotators and back."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from assay import registry, tasks
from assay.cli import app
from assay.errors import InputError, ReadError
from assay.families.base import Budget, Candidate
from assay.ship.bundle import Bundle, load, pack
from assay.store.records import Feedback, Prediction
from assay.store.store import Store
from assay.watch.feedback import Imported, import_file, understood
from assay.watch.feedback_out import export_file

N = 60


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_CACHE", str(folder / "cache"))
        out = {}
        for name in ("classify", "regress"):
            kind = tasks.find(name)
            data = kind.example()
            task = kind.of(data)
            candidate = registry.get("assay.families", Candidate, "linear")
            model = candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=20))
            out[name] = pack(folder / f"{name}.assay", task=task, candidate=candidate, params={}, schema=data.schema, model_folder=model,
                             calibration=task.calibration(task.truth(data), model.predict(data.asked())), facts={}, reference=data.asked().frame)
        yield out


@pytest.fixture(scope="module")
def bundles(packed: dict[str, Path]) -> dict[str, Bundle]:
    return {name: load(path) for name, path in packed.items()}


def asked(store: Store, bundle: Bundle, model: str = "shop", n: int = N, rows: bool = True, at: float = 1e9) -> tuple[list[str], pl.DataFrame]:
    """n answers as the service keeps them; (their ids, their rows with an order number)."""
    data = tasks.find(bundle.task.name).example(seed=1)
    frame = data.asked().frame[:n].with_columns(pl.col("when").dt.strftime("%Y-%m-%d"))
    answers = bundle.predict(frame).to_dicts()
    ids = [f"{i:024x}" for i in range(1, n + 1)]
    store.write(predictions=[Prediction(i, at + k, model, 1, answer, {**row, "order": 1000 + k} if rows else None, doubt=1 - answer.get("probability", 0.5))
                             for k, (i, answer, row) in enumerate(zip(ids, answers, frame.to_dicts(), strict=True))])
    return ids, frame


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.sqlite") as opened:
        yield opened


def labels(store: Store) -> dict[str | None, Any]:
    """The last label of every answer."""
    return {f.prediction: f.label for f in reversed(store.feedback.recent("shop", 10_000))}


def counts(done: Imported) -> tuple[int, int, int, int]:
    return done.added, done.known, done.unlabelled, done.waiting


SAVE: dict[str, Callable[[pl.DataFrame, Path], object]] = {"csv": pl.DataFrame.write_csv, "jsonl": pl.DataFrame.write_ndjson, "parquet": pl.DataFrame.write_parquet}


# ---- once


@pytest.mark.parametrize("ending", SAVE)
def test_a_file_that_is_imported_twice_is_in_the_store_once(store: Store, bundles: dict[str, Bundle], tmp_path: Path, ending: str) -> None:
    ids, _ = asked(store, bundles["classify"])
    told = [["complaint", "praise", "question", None][i % 4] for i in range(N)]
    SAVE[ending](pl.DataFrame({"prediction": ids, "label": told}), tmp_path / f"l.{ending}")
    assert counts(import_file(store, "shop", bundles["classify"], tmp_path / f"l.{ending}")) == (45, 0, 15, 0)
    assert counts(import_file(store, "shop", bundles["classify"], tmp_path / f"l.{ending}")) == (0, 45, 15, 0)
    assert labels(store) == {i: t for i, t in zip(ids, told, strict=True) if t}
    assert {f.source for f in store.feedback.recent("shop", 100)} == {"file"}
    assert store.audit.verify().first_broken is None


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["complaint", "praise", "question"])), min_size=1, max_size=12), st.integers(0, 11))
def test_any_file_twice_or_in_two_parts_leaves_the_last_label_of_each_answer(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory,
                                                                            lines: list[tuple[int, str]], cut: int) -> None:
    folder = tmp_path_factory.mktemp("h")
    with Store.open(folder / "s.sqlite") as store:
        ids, _ = asked(store, bundles["classify"], n=6)
        for part in (lines[:cut], lines, lines):
            if part:
                pl.DataFrame({"prediction": [ids[i] for i, _ in part], "label": [label for _, label in part]}).write_csv(folder / "l.csv")
                import_file(store, "shop", bundles["classify"], folder / "l.csv")
        before = len(store.feedback.recent("shop", 1000))
        assert counts(import_file(store, "shop", bundles["classify"], folder / "l.csv"))[0] == 0
        assert len(store.feedback.recent("shop", 1000)) == before
        assert labels(store) == {ids[i]: label for i, label in lines}


def test_an_old_line_does_not_overrule_what_was_said_on_the_page_since_but_a_new_one_does(store: Store, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    ids, _ = asked(store, bundles["classify"])
    file = tmp_path / "l.csv"
    pl.DataFrame({"prediction": ids[:2], "label": ["praise", "praise"]}).write_csv(file)
    import_file(store, "shop", bundles["classify"], file)
    store.write(feedback=[Feedback("shop", "label", ids[0], "question", source="page")])
    pl.DataFrame({"prediction": ids[:3], "label": ["praise", "praise", "praise"]}).write_csv(file)  # the file has grown
    assert counts(import_file(store, "shop", bundles["classify"], file)) == (1, 2, 0, 0)
    assert labels(store)[ids[0]] == "question"
    pl.DataFrame({"prediction": ids[:1], "label": ["complaint"]}).write_csv(file)
    import_file(store, "shop", bundles["classify"], file)
    assert labels(store)[ids[0]] == "complaint"


def test_whole_rows_with_labels_are_kept_once_and_teach(store: Store, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    from assay.retrain.material import Kept, gather

    data = tasks.find("classify").example(seed=2)
    data.frame.with_columns(pl.col("when").dt.strftime("%Y-%m-%d")).write_csv(tmp_path / "rows.csv")
    assert counts(import_file(store, "shop", bundles["classify"], tmp_path / "rows.csv")) == (150, 0, 0, 0)
    assert counts(import_file(store, "shop", bundles["classify"], tmp_path / "rows.csv")) == (0, 150, 0, 0)
    found = gather(store, "shop", bundles["classify"], Kept(tmp_path, "shop"))
    assert found.labelled == 150
    assert found.frame["kind"].to_list() == data.frame["kind"].to_list()
    assert np.allclose(found.frame["weight"], data.frame["weight"])


# ---- late


def test_labels_that_come_later_are_joined_by_a_key_and_those_without_an_answer_wait(store: Store, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    pl.DataFrame({"order": np.arange(990, 1010), "label": ["praise"] * 20}).write_csv(tmp_path / "l.csv")
    ids, _ = asked(store, bundles["classify"], n=5)
    first = import_file(store, "shop", bundles["classify"], tmp_path / "l.csv", key="order")
    assert counts(first) == (5, 0, 0, 15)
    assert "15 labels have no answer" in str(first.notes[0])
    assert labels(store) == dict.fromkeys(ids, "praise")
    more = [Prediction(f"{100 + i:024x}", 2e9 + i, "shop", 1, {"answer": "praise"}, {"order": str(1000 + i)}) for i in range(5, 12)]
    store.write(predictions=more)
    assert counts(import_file(store, "shop", bundles["classify"], tmp_path / "l.csv", key="order")) == (5, 5, 0, 10)


def test_of_answers_with_the_same_key_the_newest_takes_the_label(store: Store, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    store.write(predictions=[Prediction(f"{i:024x}", 1e9 + i, "shop", 1, {"answer": "praise"}, {"order": 7}) for i in range(3)])
    (tmp_path / "l.csv").write_text("order,label\n7.0,praise\n")
    import_file(store, "shop", bundles["classify"], tmp_path / "l.csv", key="order")
    assert list(labels(store)) == [f"{2:024x}"]


def test_labels_of_answers_that_are_not_there_are_kept_and_said(store: Store, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    ids, _ = asked(store, bundles["classify"], n=3)
    pl.DataFrame({"prediction": [ids[0], "f" * 24], "label": ["praise", "praise"]}).write_csv(tmp_path / "l.csv")
    done = import_file(store, "shop", bundles["classify"], tmp_path / "l.csv")
    assert counts(done) == (2, 0, 0, 1)
    assert "not in the store" in str(done.notes[0])


# ---- refused


@pytest.mark.parametrize(("text", "options", "words"), [
    ("prediction,label\n{id},prase\n", {}, "none of the known classes complaint, praise, question: prase (first in row 1). Did you mean 'praise'"),
    ("prediction,label\n{id},\n", {}, "no label in any"), ("prediction,label\n,praise\n", {}, "Row 1 has a label and no 'prediction'"),
    ("prediction,label\nnobody,praise\n", {}, "None of the 1 ids"), ("a,label\n1,praise\n", {}, "lacks weight, shop, note, when"),
    ("prediction,answer\n{id},praise\n", {}, "no column for the label"), ("prediction,label\n{id},praise\n", {"label": "labl"}, "Did you mean 'label'"),
    ("prediction,label\n{id},praise\n", {"key": "order"}, "No column is called 'order'"),
    ("weight,shop,note,when,label\nheavy,north,x,2026-01-01,praise\n", {}, "Column 'weight', row 1: 'heavy' is no number")])
def test_a_file_that_cannot_be_taken_is_one_sentence_and_nothing_is_kept(store: Store, bundles: dict[str, Bundle], tmp_path: Path, text: str, options: dict[str, str], words: str) -> None:
    ids, _ = asked(store, bundles["classify"], n=2)
    (tmp_path / "l.csv").write_text(text.replace("{id}", ids[0]))
    with pytest.raises(InputError) as raised:
        import_file(store, "shop", bundles["classify"], tmp_path / "l.csv", **options)  # type: ignore[arg-type]
    assert words in str(raised.value)
    assert raised.value.text.to("zh") != str(raised.value)
    assert labels(store) == {}


def test_new_classes_are_taken_when_allowed_and_amounts_have_to_be_finite(store: Store, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    ids, _ = asked(store, bundles["classify"], n=2)
    pl.DataFrame({"prediction": ids, "label": ["praise", "threat"]}).write_csv(tmp_path / "l.csv")
    assert import_file(store, "shop", bundles["classify"], tmp_path / "l.csv", allow_new=True).added == 2
    pl.DataFrame({"prediction": ids, "label": ["17.5", "many"]}).write_csv(tmp_path / "a.csv")
    with pytest.raises(InputError, match="the first is 'many' in row 2"):
        import_file(store, "shop", bundles["regress"], tmp_path / "a.csv", allow_new=True)


@given(st.sampled_from([True, False, 0, 1, 7, "yes"]))
def test_a_label_is_understood_however_a_file_writes_it(label: object) -> None:
    task = tasks.find("classify")((True, False) if isinstance(label, bool) else (0, 1, 7) if isinstance(label, int) else ("yes", "no"))
    written = {str(label), str(label).upper() if isinstance(label, bool) else str(label)} | ({float(label), f"{label}.0"} if type(label) is int else set())
    for form in (label, *written):
        value, reason = understood(task, form)
        assert reason is None
        assert value == label
        assert type(value) is type(label)


# ---- to annotators and back


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_what_is_exported_comes_back_with_its_labels(store: Store, bundles: dict[str, Bundle], tmp_path: Path, ending: str) -> None:
    asked(store, bundles["classify"])
    out = tmp_path / f"ask.{ending}"
    assert export_file(store, "shop", bundles["classify"], out, limit=20) == 20
    frame = pl.read_csv(out) if ending == "csv" else pl.read_ndjson(out)
    assert {"prediction", "label", "answer", "probability", "doubt", "why", "weight", "note"} <= set(frame.columns)
    assert frame["why"].value_counts().filter(pl.col("why") == "random")["count"].to_list() == [2]
    SAVE[ending](frame.with_columns(label=pl.Series(["praise"] * 12 + [None] * 8, dtype=pl.String)), out)
    assert counts(import_file(store, "shop", bundles["classify"], out)) == (12, 0, 8, 0)
    assert set(labels(store)) == set(frame["prediction"][:12])
    assert export_file(store, "shop", bundles["classify"], tmp_path / "done.csv", which="labelled") == 12
    assert pl.read_csv(tmp_path / "done.csv")["label"].to_list() == ["praise"] * 12


def test_annotators_see_the_suggestion_and_their_choice_comes_back(store: Store, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    asked(store, bundles["classify"])
    export_file(store, "shop", bundles["classify"], tmp_path / "ask.json", limit=10)
    found = json.loads((tmp_path / "ask.json").read_text())
    config = ET.parse(tmp_path / "ask.json.xml").getroot()
    asked_for = config.find("Choices")
    assert asked_for is not None
    assert [c.get("value") for c in asked_for] == ["complaint", "praise", "question"]
    for task in found:
        suggested = task["predictions"][0]["result"][0]
        kept = store.predictions.get(task["data"]["assay"]["prediction"])
        assert kept is not None
        assert suggested["value"] == {"choices": [kept.answer["answer"]]}
        assert task["predictions"][0]["score"] == kept.answer["probability"]
        assert (suggested["from_name"], suggested["to_name"]) == (asked_for.get("name"), asked_for.get("toName"))
        assert all(name[1:] in task["data"] for name in [e.get("value") for e in config if e.get("value")])  # type: ignore[index]
    done = [task | {"id": i, "annotations": [{"result": [suggested_as(task, "praise")], "was_cancelled": i == 3, "created_at": "2026-01-01"}]} for i, task in enumerate(found)]
    done[5]["annotations"] += [{"result": [suggested_as(found[5], "question")], "updated_at": f"2026-01-0{d}"} for d in (2, 3)]
    (tmp_path / "export.json").write_text(json.dumps(done))
    imported = import_file(store, "shop", bundles["classify"], tmp_path / "export.json")
    assert counts(imported) == (9, 0, 1, 0)
    assert "In 1 tasks annotators disagreed" in str(imported.notes[0])
    assert labels(store)[found[5]["data"]["assay"]["prediction"]] == "question"
    assert counts(import_file(store, "shop", bundles["classify"], tmp_path / "export.json")) == (0, 9, 1, 0)


def suggested_as(task: dict[str, Any], choice: str) -> dict[str, Any]:
    return {**task["predictions"][0]["result"][0], "value": {"choices": [choice]}}


@pytest.mark.parametrize(("value", "kind"), [({"number": 42.5}, "number"), ({"rating": 4}, "rating"), ({"text": ["17"]}, "textarea")])
def test_numbers_ratings_and_texts_of_annotators_are_amounts(store: Store, bundles: dict[str, Bundle], tmp_path: Path, value: dict, kind: str) -> None:
    ids, _ = asked(store, bundles["regress"], n=3)
    task = {"data": {"prediction": ids[0]}, "annotations": [{"result": [{"from_name": "price", "type": kind, "value": value}]}]}
    (tmp_path / "e.json").write_text(json.dumps([task]))
    import_file(store, "shop", bundles["regress"], tmp_path / "e.json")
    assert labels(store) == {ids[0]: float(np.ravel(next(iter(value.values())))[0])}


def test_the_flat_export_is_read_too_and_what_is_no_export_is_one_sentence(store: Store, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    ids, _ = asked(store, bundles["classify"], n=3)
    flat = [{"id": 1, "assay": {"prediction": ids[0]}, "label": "praise", "annotator": 1}, {"id": 2, "assay": {"prediction": ids[1]}, "label": {"choices": ["question"]}}]
    (tmp_path / "e.json").write_text(json.dumps(flat))
    import_file(store, "shop", bundles["classify"], tmp_path / "e.json")
    assert labels(store) == {ids[0]: "praise", ids[1]: "question"}
    boxes = [{"data": {"prediction": ids[0]}, "annotations": [{"result": [{"type": "rectanglelabels", "value": {"x": 1}}]}]}]
    for text, words in (("{", "is no JSON"), ("{}", "no export of Label Studio"), ("[]", "no export"), (json.dumps(boxes), "of the type 'rectanglelabels'"),
                        (json.dumps([{"data": {"prediction": ids[0]}, "annotations": [{"result": [{"value": {"choices": ["praise", "question"]}}]}]}]), "2 answers at once")):
        (tmp_path / "e.json").write_text(text)
        with pytest.raises(InputError, match=words):
            import_file(store, "shop", bundles["classify"], tmp_path / "e.json")
    with pytest.raises(ReadError, match="no file"):
        import_file(store, "shop", bundles["classify"], tmp_path / "none.json")


# ---- the command


def test_the_command_exports_and_imports_from_a_home(packed: dict[str, Path], bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "bundles").mkdir(parents=True)
    bundle = bundles["classify"]
    shutil.copy(packed["classify"], home / "bundles" / f"{bundle.digest}.assay")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["feedback", *words, "--home", str(home)])
        if done.exception and not isinstance(done.exception, SystemExit):
            return str(done.exception)
        return done.output

    with Store.open(home / "store.sqlite") as store:
        assert "no model in this home" in run("export")
        version = store.versions.add("shop", bundle.digest, f"bundles/{bundle.digest}.assay", "serve", {})
        if store.versions.stage("shop") is None:
            store.versions.promote("shop", version.version, "cli", "first")
        ids, _ = asked(store, bundle)
    assert "10 rows written: shop-labels.csv" in run("export", "--limit", "10")
    pl.read_csv("shop-labels.csv").with_columns(label=pl.lit("praise")).write_csv("shop-labels.csv")
    assert "10 labels added, 0 were there already, 0 rows have no label." in run("import", "shop-labels.csv")
    assert "0 labels added, 10 were there already" in run("import", "shop-labels.csv", "--model", "shop")
    assert "10 tasks written: a.json" in run("export", "a.json", "--limit", "10")
    assert "There is no model 'shp'" in run("import", "shop-labels.csv", "--model", "shp")
    assert len(ids) == N
