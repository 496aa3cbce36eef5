"""Folders of pictures and sounds, tables of their paths or bytes: what is read, how it is split, and what is said where it cannot be."""

import base64
import io
import shutil
import wave
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from assay import api
from assay.case import Case
from assay.cli import app
from assay.contest.prepare import splits_of
from assay.data.dataset import Dataset, Schema
from assay.data.demo import DEMOS
from assay.data.folders import _leaves
from assay.data.inspect import findings
from assay.data.media import pixels, size_of
from assay.data.read import conform, named_by, read
from assay.data.split import copies, holdout, judges, side_of, splits
from assay.errors import AssayError, InputError
from assay.tasks import choose, find

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the folder of open datasets is not beside the checkout")
Image = pytest.importorskip("PIL.Image")


def png(seed: int, *, size: tuple[int, int] = (9, 8), mode: str = "RGB", form: str = "PNG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(out, form)
    return out.getvalue()


def wav(seed: int, *, channels: int = 1, width: int = 2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sink:
        sink.setnchannels(channels)
        sink.setsampwidth(width)
        sink.setframerate(8000)
        sink.writeframes(np.random.default_rng(seed).integers(0, 255, 400 * channels * width, dtype=np.uint8).tobytes())
    return out.getvalue()


def lay(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, cell in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(cell if isinstance(cell, bytes) else cell.encode())
    return folder


def classes(n: int = 12, make=png, suffix: str = "png") -> dict[str, bytes]:
    return {f"{name}/{i}.{suffix}": make(100 * k + i) for k, name in enumerate(("cat", "dog")) for i in range(n)}


LISTED = "path,label,size\n" + "".join(f"im/{i}.png,{'ab'[i % 2]},{i / 2}\n" for i in range(30))
PICTURES = {f"im/{i}.png": png(i) for i in range(30)}


def asked(source, **options) -> tuple[Dataset, Case, list[str]]:
    found = api._ask(source, api._case(source, options.pop("target", None), options))
    return found.data, found.case, [str(n) for n in found.notes]


def refused(source, **options) -> str:
    with pytest.raises(AssayError) as error:
        asked(source, **options)
    text = str(error.value)
    assert "Traceback" not in text
    assert "{" not in text
    return text


# ---- what is read


def test_a_subfolder_is_a_class_and_its_files_are_cells_as_they_were_found(tmp_path):
    files = classes()
    data, case, notes = asked(lay(tmp_path, files | {"notes.txt": "x", ".DS_Store": b"1", "sheet.png": png(7)}))
    assert [(c.name, c.kind) for c in data.schema.columns] == [("file", "id"), ("image", "image"), ("class", "category")]
    assert case.target == "class"
    assert {f: bytes(c) for f, c in data.frame.select("file", "image").iter_rows()} == files
    assert all(row["file"].startswith(row["class"]) for row in data.frame.iter_rows(named=True))
    assert any("24 pictures in 2 classes" in n for n in notes)
    assert any("1 files outside the subfolders" in n for n in notes)


def test_what_a_file_is_its_first_bytes_say_and_not_its_name(tmp_path):
    data, _, _ = asked(lay(tmp_path, classes(make=wav, suffix="png")))
    assert data.frame.columns[:2] == ["file", "sound"]
    assert asked(lay(tmp_path / "dat", classes(suffix="dat")))[0].frame["image"].null_count() == 0


def test_train_and_test_folders_are_the_split_and_the_split_is_no_feature(tmp_path):
    files = {f"{side}/{name}": png(1000 * s + i) for s, side in enumerate(("train", "val", "test")) for i, name in enumerate(classes(8))}
    data, case, notes = asked(lay(tmp_path, files))
    task = find("classify").of(data)
    parts, how = splits_of(case, task, data)
    sides = data.frame["split"].to_numpy()
    assert set(sides[parts[0].test]) == {"test"}
    assert set(sides[parts[0].train]) == {"train", "valid"}
    assert (len(parts), len(parts[0].train), len(parts[0].test)) == (1, 32, 16)
    assert [c.name for c in data.schema.features] == ["image"]
    assert any("validation rows teach too" in n for n in notes)
    assert "as 'split' says" in str(how)
    other = splits_of(Case(target="class", split="random"), task, data)[0]
    assert {"train", "test"} <= set(sides[other[0].test])


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_a_table_of_paths_reads_the_files_beside_it_named_alone_or_by_its_folder(tmp_path, form):
    folder = lay(tmp_path, dict(PICTURES))
    table = pl.read_csv(io.StringIO(LISTED))
    file = folder / f"labels.{form}"
    {"csv": table.write_csv, "parquet": table.write_parquet, "jsonl": table.write_ndjson}[form](file)
    for source in (folder, file):
        data, case, _ = asked(source)
        assert case.target == "label"
        assert [(c.name, c.kind) for c in data.schema.columns] == [("path", "id"), ("image", "image"), ("label", "category"), ("size", "number")]
        assert [bytes(c) for c in data.frame["image"]] == [PICTURES[p] for p in data.frame["path"]]


def test_cells_of_bytes_and_structs_of_hugging_face_are_pictures(tmp_path):
    cells = [png(i) for i in range(30)]
    held = pl.DataFrame({"scan": [{"bytes": c if i else None, "path": f"{i}.png"} for i, c in enumerate(cells)], "label": [i % 2 for i in range(30)]})
    (tmp_path / "0.png").write_bytes(cells[0])
    for side in ("train", "test"):
        held.write_parquet(tmp_path / f"{side}-00000-of-00001.parquet")
    data, case, _ = asked(tmp_path / "train-00000-of-00001.parquet")
    assert (case.target, data.schema.columns[0].kind) == ("label", "image")
    assert [bytes(c) for c in data.frame["scan"]] == cells
    plain, _, _ = asked(pl.DataFrame({"scan": cells, "label": held["label"]}))
    assert plain.frame["scan"].equals(data.frame["scan"])
    (tmp_path / "0.png").unlink()
    held.slice(1).write_parquet(tmp_path / "train-00000-of-00001.parquet")
    held.slice(1).write_parquet(tmp_path / "test-00000-of-00001.parquet")
    whole, _, _ = asked(tmp_path)
    assert whole.frame["split"].value_counts().sort("split").rows() == [("test", 29), ("train", 29)]


def test_sounds_of_every_make_and_pictures_of_every_mode_are_read(tmp_path):
    sounds = {f"{name}/{i}.wav": wav(50 * k + i, channels=1 + i % 2, width=1 + i % 4) for k, name in enumerate("ab") for i in range(12)}
    assert len(asked(lay(tmp_path / "s", sounds))[0]) == 24
    modes = [("jpg", "CMYK", "JPEG"), ("png", "LA", "PNG"), ("png", "I;16", "PNG"), ("gif", "P", "GIF"), ("bmp", "1", "BMP"), ("tif", "L", "TIFF"), ("webp", "RGBA", "WEBP")]
    pictures = {f"{name}/{i}.{modes[i % 7][0]}": png(50 * k + i, mode=modes[i % 7][1], form=modes[i % 7][2], size=(5 + i, 30)) for k, name in enumerate("ab") for i in range(14)}
    assert len(asked(lay(tmp_path / "p", pictures))[0]) == 28


def test_of_a_folder_larger_than_memory_rows_are_drawn_and_mapped_from_disk(tmp_path):
    lay(tmp_path / "pets", {f"{n}/{i}.png": png(1000 * k + i, size=(40, 40)) for k, n in enumerate("ab") for i in range(40)})
    whole = read(tmp_path / "pets", target="class").dataset
    part = read(tmp_path / "pets", target="class", memory_mb=1.0, folder=tmp_path / "columns")
    assert part.shelf is not None
    assert 0 < len(part.dataset) < 80
    assert part.dataset.frame.equals(whole.take(part.dataset.rows).frame)


def test_the_digits_of_the_demo_are_pictures():
    frame = DEMOS["digits"].frame()
    assert (frame.height, frame["digit"].n_unique()) == (1797, 10)
    assert size_of(frame["image"][0]) == (16, 16)
    paper = pixels(frame["image"][0], 16, grey=True)
    assert paper.max() == 255
    assert paper.min() < 40


# ---- what is refused, in a sentence


@pytest.mark.parametrize(("files", "told"), [
    ({f"cat/{i}.png": png(i) for i in range(30)}, ["one class, 'cat'", "two or more classes"]),
    ({"cat/1.png": png(1), "dog/1.png": png(2)}, ["Rows found: 2", "At least 20"]),
    ({f"{i}.png": png(i) for i in range(30)}, ["nothing says what they show", "labels.csv"]),
    (classes() | {"cat/zero.png": b"", "dog/cut.png": png(5, size=(60, 60))[:3000]}, ["2 of 26", "cat/zero.png (it is empty)", "dog/cut.png (it breaks off", "--skip-broken"]),
    (classes() | {"cat/readme.png": b"this is no picture"}, ["1 of 25", "cat/readme.png (it begins like no picture"]),
    (classes() | {"cat/a.wav": wav(1)}, ["24 pictures and 1 sounds", "'cat/a.wav'"]),
    ({f"cat/{i}.heic": b"\0\0\0\x18ftypheic" for i in range(3)}, ["3 images", ".heic", "Convert"]),
    (PICTURES | {"labels.csv": LISTED.replace("im/7.png", "im/none.png")}, ["1 of 30", "im/none.png (there is no such file)", "--skip-broken"]),
    ({"labels.csv": LISTED}, ["'im/0.png'", "no such file", "--kind path=category"]),
    (PICTURES | {"labels.csv": LISTED.replace("im/7.png", "../im/7.png")}, ["'../im/7.png'", "outside"]),
    (PICTURES | {"labels.csv": LISTED.replace("im/7.png", "/etc/7.png")}, ["'/etc/7.png'", "outside"]),
    (PICTURES | {"labels.csv": LISTED.replace("label", "shown")}, ["--target COLUMN", "shown, size"]),
    (PICTURES | {"a.csv": LISTED, "b.csv": LISTED}, ["several tables", "a.csv, b.csv"]),
], ids=["one class", "one picture a class", "no classes", "broken", "no picture", "mixed", "unreadable", "absent", "none there", "climbs", "absolute", "no answer", "two lists"])
def test_what_cannot_be_used_is_told_in_a_sentence_with_the_next_step(tmp_path, files, told):
    text = refused(lay(tmp_path, files))
    assert [t for t in told if t not in text] == [], text


def test_a_picture_of_400_million_pixels_is_refused_by_its_head_before_memory_is_taken(tmp_path):
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    assert "20,000 x 20,000" in refused(lay(tmp_path, classes() | {"cat/huge.png": out.getvalue()}))


def test_broken_files_are_left_out_by_choice_only_and_counted(tmp_path):
    folder = lay(tmp_path, classes() | {"cat/zero.png": b"", "dog/cut.png": png(5, size=(60, 60))[:3000]})
    data, _, notes = asked(folder, skip_broken=True)
    assert len(data) == 24
    assert any(n.startswith("2 of 26 rows were left out") and "cat/zero.png" in n for n in notes)
    for i in range(12):
        (folder / f"cat/{i}.png").write_bytes(b"")
        (folder / f"dog/{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "none can be used" in refused(folder, skip_broken=True)


def test_words_that_look_like_names_of_pictures_are_read_as_words_where_the_user_says_so(tmp_path):
    file = lay(tmp_path, {"labels.csv": LISTED}) / "labels.csv"
    assert asked(file, target="label", kinds={"path": "category"})[0].schema.columns[0].kind == "category"
    assert asked(file, target="label", drop=["path"])[0].frame.columns == ["label", "size"]


@given(st.lists(st.sampled_from(["a", "..", ".", "b c", "图", ""]), max_size=5), st.sampled_from(["/", "\\"]), st.sampled_from(["", "/", "C:\\", "~/", "\\\\host\\"]))
@settings(max_examples=60)
def test_no_path_of_a_table_leaves_its_folder(steps, between, start):
    path = start + between.join([*steps, "x.png"])
    inside = (Path("/somewhere/x") / path.replace("\\", "/")).resolve().is_relative_to("/somewhere/x") and ":" not in path and not path.startswith("~")
    assert _leaves(path) or inside


# ---- the split


@given(st.lists(st.integers(0, 12), min_size=24, max_size=40), st.integers(0, 3))
@settings(max_examples=25)
def test_equal_pictures_never_stand_on_both_sides(which, seed):
    cells = [png(i) for i in range(13)]
    data = _dataset([cells[i] for i in which], [i % 2 for i in range(len(which))])
    if len(set(which)) < 6:
        return
    for part in splits(data, folds=3, share=0.2, seed=seed, kind="random"):
        assert not {which[i] for i in part.train} & {which[i] for i in part.test}
    rest, held = holdout(data, share=0.3, seed=seed)
    assert not {which[i] for i in rest} & {which[i] for i in held}


def test_of_the_split_that_the_data_bring_no_row_teaches_whose_copy_judges():
    cells = [png(i) for i in range(20)]
    data = _dataset([*cells, *cells[:5], png(30)], [0, 1] * 13, extra={"split": ["Train"] * 20 + ["Test"] * 6})
    schema = Schema((*data.schema.columns[:2], data.schema.columns[2].__class__("split", "id", unit="split")), "y")
    part = splits(Dataset(data.frame, schema), folds=1, share=0.2, seed=0, kind="given")[0]
    assert part.test.tolist() == [20, 21, 22, 23, 24, 25]
    assert part.train.tolist() == list(range(5, 20))


@given(st.lists(st.sampled_from(["train", "Test", "val", "dev", "训练", "测试集", None, "fold 1"]), min_size=1, max_size=12))
def test_a_column_is_a_split_only_if_every_cell_says_a_side_and_both_are_there(cells):
    found = judges(pl.Series("split", cells, dtype=pl.String))
    sides = [side_of(c) if c else None for c in cells]
    if None in sides or "train" not in sides or len(set(sides)) < 2:
        assert found is None
    else:
        late = "test" if "test" in sides else "valid"
        assert found is not None
        assert found.tolist() == [s == late for s in sides]


def test_a_table_of_numbers_with_a_split_column_is_split_by_it_too(tmp_path):
    rng = np.random.default_rng(0)
    table = pl.DataFrame({"x": rng.normal(size=100), "subset": ["train"] * 70 + ["test"] * 30, "y": rng.choice(["a", "b"], 100)})
    data, case, notes = asked(table, target="y")
    assert [c.name for c in data.schema.features] == ["x"]
    assert splits_of(case, find("classify").of(data), data)[0][0].test.tolist() == list(range(70, 100))
    assert any("'subset'" in n for n in notes)
    assert len(asked(table, target="y", kinds={"subset": "category"})[0].schema.features) == 2
    with pytest.raises(InputError, match="no split of their own"):
        splits_of(Case(target="y", split="given"), find("classify").of(data), Dataset(data.frame, Schema(data.schema.columns[:1] + data.schema.columns[2:], "y")))


def _dataset(cells, answers, extra=None) -> Dataset:
    frame = pl.DataFrame({"image": pl.Series(cells, dtype=pl.Binary), "y": [str(a) for a in answers]} | (extra or {}))
    return read(frame, target="y", kinds=dict.fromkeys(extra or {}, "category")).dataset


# ---- looking


def test_looking_at_pictures_finds_copies_and_breaks_at_nothing(tmp_path):
    rng = np.random.default_rng(1)
    cells = [png(i) for i in range(80)] + [png(i) for i in range(20)]
    table = pl.DataFrame({"image": cells, "speed": rng.normal(size=100), "site": [f"s{i % 9}" for i in range(100)], "y": [str(i % 2) for i in range(80)] + ["1"] * 20})
    for frame in (table, table.select("image", "y")):
        data, _, _ = asked(frame, target="y")
        found = {f.code: f for f in findings(data, labels=True, seed=0)}
        assert found["duplicates"].figure["copies"] == 20
        assert found["conflicts"].figure["rows_in_conflict"] == 20
        assert copies(data) is not None
    assert data.fingerprint == asked(table.select("image", "y"), target="y")[0].fingerprint


def test_look_reads_a_folder_without_a_target_and_names_the_one_it_took(tmp_path):
    done = CliRunner().invoke(app, ["look", str(lay(tmp_path / "pets", classes(40))), "--time", "5s", "--lang", "en"])
    assert done.exit_code == 0, done.output
    assert "The answer is 'class'" in done.output
    assert "--target class" in done.output


# ---- new rows


def test_new_pictures_are_the_same_cells_however_they_come(tmp_path):
    folder = lay(tmp_path, PICTURES | {"labels.csv": LISTED})
    schema = asked(folder)[0].schema
    schema = Schema.of(schema.json())
    assert named_by(schema) == ["path"]
    cell, name = PICTURES["im/3.png"], "im/3.png"
    uri = "data:image/png;base64," + base64.b64encode(cell).decode()
    rows = conform([{"image": given, "size": 1} for given in (cell, uri, uri.partition(",")[2], bytearray(cell))], schema)
    assert {bytes(c) for c in rows.frame["image"]} == {cell}
    no_size = Schema(tuple(c for c in schema.columns if c.name != "size"), "label")
    for source, named in ((folder / name, "3.png"), (folder / "im", "3.png"), (folder / "labels.csv", name), (folder, name)):
        frame = conform(source, no_size).frame
        assert frame.row(by_predicate=pl.col("path") == named, named=True)["image"] == cell


@pytest.mark.parametrize("given", ["/etc/passwd", "im/3.png", "data:image/png;base64,????", "data:image/png;base64,aGVsbG8=", 7, b"hello", [1, 2]])
def test_a_request_cannot_name_a_file_and_what_is_no_picture_is_refused(given):
    schema = Schema.of({"columns": [{"name": "image", "kind": "image"}], "target": None, "time": None, "group": None})
    with pytest.raises(InputError, match="Column 'image', row 1"):
        conform([{"image": given}], schema)


def test_broken_new_files_are_named(tmp_path):
    schema = asked(lay(tmp_path / "a", classes()))[0].schema
    folder = lay(tmp_path / "b", {"x.png": png(1), "cut.png": png(5, size=(60, 60))[:3000], "zero.png": b""})
    with pytest.raises(InputError, match=r"2 of 3 .*cut.png .*zero.png"):
        conform(folder, schema)
    with pytest.raises(InputError, match=r"'zero.png' is empty"):
        conform(folder / "zero.png", schema)
    with pytest.raises(InputError, match=r"it is a sound"):
        conform(lay(tmp_path / "c", {"a.wav": wav(1)}), schema)


# ---- real sets


@pytest.mark.real
@needs_shared
@pytest.mark.parametrize(("name", "target", "taught", "judged", "kind", "classes"), [
    ("02_neu_surface_defects", None, 660, 240, "image", 6), ("12_spoken_digits", None, 900, 300, "audio", 10), ("07_pneumonia_xray", None, 2698, 468, "image", 2),
    ("03_cifar10", None, 10_000, 2000, "image", 10), ("02_elpv_solar_cells", "defective", None, None, "image", 2)])
def test_real_folders_are_read_with_their_own_split(name, target, taught, judged, kind, classes):
    data, case, _ = asked(SHARED / name, **({"target": target} if target else {}))
    assert [c.kind for c in data.schema.of_kind("image", "audio")] == [kind]
    task = choose(data)[0].of(data)
    assert (task.name, task.width) == ("classify", classes)
    parts, _ = splits_of(case, task, data)
    if judged:
        assert len(parts[0].test) == judged
        assert taught - 20 <= len(parts[0].train) <= taught  # copies of what judges do not teach


@pytest.mark.slow
def test_a_contest_on_pictures_ends_with_a_bundle_that_answers_a_folder(tmp_path):
    folder = lay(tmp_path / "pets", classes(40))
    run = api.run(folder, time="40s", candidates=("naive",), out=tmp_path / "run")
    answers = api.load(run.winner).predict(folder / "cat")
    assert answers.height == 40
    shutil.rmtree(tmp_path / "run")
