"""Workbooks, folders of parts, databases, and tables that do not fit into memory."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import re
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from private_memory import peak_of

from assay.data import excel, stream
from assay.data.disk import Shelf, stored
from assay.data.kinds import infer
from assay.data.load import load, opened
from assay.data.read import conform, read
from assay.data.table import Held, Table
from assay.errors import BudgetError, InputError, MissingExtra, ReadError

openpyxl = pytest.importorskip("openpyxl", reason="openpyxl writes the workbooks of these tests")


def refused(source: object, *, error: type[InputError] = ReadError, **options: object) -> str:
    with pytest.raises(error) as raised:
        read(source, **options)  # type: ignore[arg-type]
    raised.value.text.to("zh")
    return str(raised.value)


def said(notes: list) -> str:
    return " ".join(map(str, notes))


# ---- workbooks


def book(path: Path, **sheets: list[list[object]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for i, row in enumerate(rows, 1):
            for j, cell in enumerate(row, 1):
                sheet.cell(i, j).value = cell
    made.save(path)
    return path


def patched(path: Path, member: str, change) -> Path:  # type: ignore[no-untyped-def]
    """The same archive with one member's bytes changed."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    members[member] = change(members[member])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return path


ROWS = [["客户", "金额", "日期", "会员", "备注"]] + [
    [f"C{i:03d}", i * 1.5, datetime.date(2024, 1, 1) + datetime.timedelta(i), i % 2 == 0, f"第{i}单"] for i in range(30)]


def test_a_sheet_is_read_as_the_same_rows_in_csv_would_be(tmp_path: Path) -> None:
    frame, notes = load(book(tmp_path / "b.xlsx", 订单=ROWS))
    assert not notes
    assert frame.columns == ROWS[0]
    assert [list(row) for row in frame.with_columns(pl.col("日期").cast(pl.Date)).iter_rows()] == ROWS[1:]
    data = read(tmp_path / "b.xlsx", target="会员").dataset
    assert [c.kind for c in data.schema.columns[:4]] == ["id", "number", "time", "category"]
    assert data.rows is not None
    assert data.rows.tolist() == list(range(30))


def test_titles_above_and_emptiness_around_a_table_are_left_out_and_said(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    sheet = made.active
    sheet["B2"] = "2024 年销售报表"
    sheet.merge_cells("B2:F2")
    sheet["B3"] = "制表：张三"
    for i, row in enumerate(ROWS):
        for j, cell in enumerate(row):
            sheet.cell(6 + i + (i > 10), 2 + j).value = cell  # one empty row in the middle
    sheet["J90"].font = openpyxl.styles.Font(bold=True)  # formatted, empty, far away
    sheet["F80"] = "   "
    made.save(tmp_path / "b.xlsx")
    frame, notes = load(tmp_path / "b.xlsx")
    assert frame.columns == ROWS[0]
    assert frame.height == 30
    assert "2024 年销售报表, 制表：张三" in said(notes)
    assert "1 empty rows are left out" in said(notes)


def test_numbers_kept_as_text_are_numbers_and_error_cells_are_missing(tmp_path: Path) -> None:
    path = book(tmp_path / "b.xlsx", s=[["amount", "y", "z"], *[[str(i) if i % 3 else float(i), "#N/A" if i in (4, 7) else i, i] for i in range(40)]])
    reading = read(path, target="z")
    assert reading.dataset.frame["amount"].to_list() == [float(i) for i in range(40)]
    assert reading.dataset.frame["y"].to_list() == [None if i in (4, 7) else float(i) for i in range(40)]
    assert "count as missing: 2, in y" in said(reading.notes)


def test_a_formula_counts_as_its_stored_result_and_one_without_is_said(tmp_path: Path) -> None:
    path = book(tmp_path / "b.xlsx", s=[["a", "twice"], *[[i, f"=A{i + 2}*2"] for i in range(30)]])
    assert "results were never stored" in said(load(path)[1])
    patched(path, "xl/worksheets/sheet1.xml", lambda xml: re.sub(
        rb"<f>A(\d+)\*2</f><v ?/?>(</v>)?", lambda m: b"<f>A%s*2</f><v>%d</v>" % (m[1], 2 * (int(m[1]) - 2)), xml))
    frame, notes = load(path)
    assert frame["twice"].to_list() == [2 * i for i in range(30)]
    assert not notes


def test_the_sheet_is_the_first_with_a_table_or_the_one_named(tmp_path: Path) -> None:
    path = book(tmp_path / "b.xlsx", 说明=[["本表由系统导出"]], 空=[], 一月=[["a", "b"], [1, 2], [3, 4]], Feb=[["a", "b"], [5, 6]])
    frame, notes = load(path)
    assert frame["a"].to_list() == [1, 3]
    assert "说明, 空, 一月, Feb" in said(notes)
    assert "'一月' is read" in said(notes)
    assert load(f"{path}#Feb")[0].rows() == [(5.0, 6.0)]
    assert "Did you mean 'Feb'" in refused(f"{path}#Fab")
    assert "no table" in refused(f"{path}#说明")
    book(tmp_path / "year#2024.xlsx", s=[["a"], [1], [2]])
    assert load(tmp_path / "year#2024.xlsx")[0].height == 2
    assert "Did you mean 'b.xlsx'" in refused(tmp_path / "bb.xlsx#Feb")


def test_an_open_document_sheet_is_read(tmp_path: Path) -> None:
    cells = "".join(f'<table:table-row><table:table-cell office:value-type="string"><text:p>r{i}</text:p></table:table-cell>'
                    f'<table:table-cell office:value-type="float" office:value="{i}"><text:p>{i}</text:p></table:table-cell></table:table-row>' for i in range(3))
    names = "".join(f'<table:table-cell office:value-type="string"><text:p>{n}</text:p></table:table-cell>' for n in ("城市", "x"))
    ns = "".join(f' xmlns:{k}="urn:oasis:names:tc:opendocument:xmlns:{k}:1.0"' for k in ("office", "table", "text"))
    with zipfile.ZipFile(tmp_path / "b.ods", "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", '<?xml version="1.0"?><manifest:manifest'
                         ' xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>')
        archive.writestr("content.xml", f'<?xml version="1.0"?><office:document-content{ns} office:version="1.2"><office:body><office:spreadsheet>'
                         f'<table:table table:name="一"><table:table-row>{names}</table:table-row>{cells}</table:table></office:spreadsheet></office:body>'
                         "</office:document-content>")
    assert load(tmp_path / "b.ods")[0].rows() == [("r0", 0.0), ("r1", 1.0), ("r2", 2.0)]


def test_what_is_no_workbook_any_more_is_one_sentence(tmp_path: Path) -> None:
    path = book(tmp_path / "b.xlsx", s=ROWS)
    whole = path.read_bytes()
    (tmp_path / "cut.xlsx").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(tmp_path / "cut.xlsx")
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0" + b"\0" * 600)
    assert "save it as .xlsx" in refused(tmp_path / "old.xls")
    (tmp_path / "locked.xlsx").write_bytes(b"\xd0\xcf\x11\xe0" + "EncryptedPackage".encode("utf-16-le") + b"\0" * 600)
    assert "password" in refused(tmp_path / "locked.xlsx")
    (tmp_path / "text.xlsx").write_text("a,b\n1,2\n")
    assert "damaged" in refused(tmp_path / "text.xlsx")
    (tmp_path / "none.xlsx").write_bytes(b"")
    assert "empty" in refused(tmp_path / "none.xlsx")
    patched(path, "xl/worksheets/sheet1.xml", lambda xml: xml[: len(xml) // 2])
    assert "damaged" in refused(path)
    assert "more than one of: a" in refused(book(tmp_path / "twice.xlsx", s=[["a", "a"], [1, 2]]))
    with pytest.raises(ReadError, match="unpacks to"):
        excel.read_sheet(book(tmp_path / "c.xlsx", s=ROWS), None, 1000)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=40), st.sampled_from(["xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/styles.xml", ""]))
def test_a_workbook_with_wrong_bytes_is_read_or_refused_in_a_sentence(tmp_path: Path, at: int, wrong: bytes, member: str) -> None:
    def spoil(content: bytes) -> bytes:
        start = at % len(content)
        return content[:start] + wrong + content[start + len(wrong):]

    path = book(tmp_path / "b.xlsx", s=ROWS[:5])
    if member:
        patched(path, member, spoil)
    else:
        path.write_bytes(spoil(path.read_bytes()))
    with contextlib.suppress(InputError):
        load(path)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "b.xlsx", s=ROWS)
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(MissingExtra, match=r"pip install 'assay\[xlsx\]'"):
        load(path)


# ---- folders of parts


def parts(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_csv", ".csv").replace("_jsonl", ".jsonl").replace("_gz", ".gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return folder


def test_parts_with_the_same_columns_in_any_order_are_one_table(tmp_path: Path) -> None:
    folder = parts(tmp_path / "p", part2_csv="a,b\n3,x\n4,y\n", part10_csv="b;a\nz;5\n", part1_csv_gz="a,b\n1,u\n2,\"v,w\"\n", _SUCCESS="", README_md="hello")
    (folder / ".part1.csv.crc").write_bytes(b"\x00\x01")
    frame, notes = load(folder)
    assert frame.rows() == [(1.0, "u"), (2.0, "v,w"), (3.0, "x"), (4.0, "y"), (5.0, "z")]
    assert "holds 3 parts with 5 rows" in said(notes)
    assert "README_md" in said(notes)


def test_a_column_that_is_text_in_one_part_keeps_what_is_written_in_all(tmp_path: Path) -> None:
    frame, _ = load(parts(tmp_path / "p", a_csv="code,x\n7,1\n8.50,2\n", b_csv="code,x\nA7,3\n"))
    assert frame["code"].to_list() == ["7", "8.50", "A7"]
    assert frame["x"].dtype == pl.Float64


def test_a_part_with_other_columns_or_broken_is_named(tmp_path: Path) -> None:
    sentence = refused(parts(tmp_path / "p", a_csv="x,y\n1,2\n", b_csv="x,z\n1,2\n"))
    assert "'b.csv' differs from 'a.csv': it lacks y, it has z besides" in sentence
    assert "Line 3 of 'b.csv' has 3 fields" in refused(parts(tmp_path / "q", a_csv="x,y\n1,2\n", b_csv="x,y\n1,2\n1,2,3\n"))
    pl.DataFrame({"x": [1], "y": [2]}).write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "a.parquet").write_bytes(whole)
    (folder / "b.parquet").write_bytes(whole[:-8])
    assert "'b.parquet' is a parquet file that is cut off" in refused(folder)
    pl.DataFrame({"x": [1]}).write_parquet(folder / "b.parquet")
    assert "'b.parquet' differs from 'a.parquet': it lacks y" in refused(folder)


def test_key_value_folders_become_columns(tmp_path: Path) -> None:
    root = tmp_path / "sales"
    for year, city, xs in (("2023", "上海", [1, 2]), ("2024", "北京", [3]), ("2024", "__HIVE_DEFAULT_PARTITION__", [4])):
        folder = root / f"year={year}" / f"city={city}"
        folder.mkdir(parents=True)
        pl.DataFrame({"x": xs}).write_parquet(folder / "part-0.parquet")
    frame, notes = load(root)
    assert sorted(frame.rows()) == [(1, "2023", "上海"), (2, "2023", "上海"), (3, "2024", "北京"), (4, "2024", None)]
    assert "names of folders: year, city" in said(notes)
    csvs = tmp_path / "csvs"
    for k, text in (("a", "x\n1\n\n2\n"), ("b", "x\n3\n")):
        (csvs / f"k={k}").mkdir(parents=True)
        (csvs / f"k={k}" / "p.csv").write_text(text)
    assert load(csvs)[0].rows() == [(1.0, "a"), (2.0, "a"), (3.0, "b")]
    with opened(csvs) as table:
        assert table.take(np.array([1, 2])).frame().rows() == [(2.0, "a"), (3.0, "b")]


def test_parts_that_disagree_on_a_type_give_the_wider_one(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    day = datetime.date(2024, 1, 2)
    pl.DataFrame({"n": [1], "t": [day], "m": [2], "e": pl.Series([None], dtype=pl.Null)}).write_parquet(folder / "1.parquet")
    pl.DataFrame({"n": [1.5], "t": [datetime.datetime(2024, 1, 3, 4)], "m": ["x"], "e": ["y"]}).write_parquet(folder / "2.parquet")
    frame, _ = load(folder)
    assert frame.to_dict(as_series=False) == {
        "n": [1.0, 1.5], "t": [datetime.datetime(2024, 1, 2), datetime.datetime(2024, 1, 3, 4)], "m": ["2", "x"], "e": [None, "y"]}
    assert load(parts(tmp_path / "j", a_jsonl='{"a": 1}\n{"a": 2, "b": "x"}\n', b_jsonl='{"b": 3}\n'))[0].rows() == [(1, None), (2, "x"), (None, "3")]


def test_a_folder_without_a_table_is_refused_in_a_sentence(tmp_path: Path) -> None:
    assert "several formats" in refused(parts(tmp_path / "p", a_csv="x\n1\n", b_jsonl='{"x": 1}\n'))
    images = tmp_path / "images" / "cats"
    images.mkdir(parents=True)
    (images / "1.png").write_bytes(b"\x89PNG")
    assert "1 images" in refused(tmp_path / "images")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.bin").write_bytes(b"1")
    assert "no part of a table" in refused(tmp_path / "other")
    (tmp_path / "none").mkdir()
    assert "is empty" in refused(tmp_path / "none")


# ---- larger than memory


def mixed(rows: int, seed: int = 0) -> pl.DataFrame:
    """Columns of every kind, with gaps, markers of missing cells and an empty column."""
    rng = np.random.default_rng(seed)
    words = ["红色", "green ", "blue", None, ""]
    return pl.DataFrame({
        "x": [None if v < -1.5 else float(v) for v in rng.normal(size=rows)], "n": rng.integers(0, 50, rows), "c": [words[v] for v in rng.integers(0, 5, rows)],
        "written": [("n/a" if v == 3 else f"{v}.5") for v in rng.integers(0, 9, rows)], "when": [f"2024-0{1 + v % 9}-1{v % 10}" for v in rng.integers(0, 99, rows)],
        "nothing": pl.Series([None] * rows, dtype=pl.String), "order_id": [f"A{i:07d}" for i in range(rows)], "flag": rng.random(rows) < 0.5,
        "note": [f"客户说这件商品 {v} 不好用，希望退货或者换一个新的" for v in rng.integers(0, 10**6, rows)], "y": rng.choice(["yes", "no"], rows)})


@pytest.mark.parametrize("form", ["parquet", "csv", "folder"])
def test_a_table_read_from_disk_is_the_table_read_in_memory(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = mixed(3000)
    path = tmp_path / f"t.{form}"
    if form == "parquet":
        frame.write_parquet(path, row_group_size=700)
    elif form == "csv":
        frame.write_csv(path)
    else:
        path.mkdir()
        for i in range(3):
            frame.slice(1000 * i, 1000).write_parquet(path / f"{i}.parquet")
    in_memory = read(path, target="y", time="when")
    monkeypatch.setattr(stream, "IN_MEMORY", 0.0)
    monkeypatch.setattr("assay.data.load.IN_MEMORY", 0.0)
    on_disk = read(path, target="y", time="when", folder=tmp_path / "columns")
    assert on_disk.dataset.frame.equals(in_memory.dataset.frame)
    assert on_disk.dataset.schema == in_memory.dataset.schema
    assert {str(n) for n in on_disk.notes} == {str(n) for n in in_memory.notes}
    assert on_disk.dataset.fingerprint == in_memory.dataset.fingerprint
    assert in_memory.shelf is None
    assert on_disk.shelf is not None


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["1", "2.5", "x", "2024-03-05", "", "n/a", "007", None]), min_size=1, max_size=40),
       st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1, max_size=40))
def test_kinds_do_not_depend_on_being_decided_column_by_column(tmp_path_factory: pytest.TempPathFactory, words: list, numbers: list) -> None:
    n = min(len(words), len(numbers))
    frame = pl.DataFrame({"w": pl.Series(words[:n], dtype=pl.String), "n": pl.Series(numbers[:n], dtype=pl.Int64), "z": [1] * n})
    whole = infer(frame)
    apart = stream.infer_by_column(Table([Held(frame)]), [["w"], ["n", "z"]], Shelf(tmp_path_factory.mktemp("s")), target=None, overrides=None, time=None, group=None, target_as=None)
    assert apart.frame.equals(whole.frame)
    assert apart.schema == whole.schema
    assert [str(t) for t in apart.notes] == [str(t) for t in whole.notes]


def test_a_sample_keeps_order_and_says_which_rows_it_holds(tmp_path: Path) -> None:
    frame = mixed(20_000)
    for path in (tmp_path / "t.parquet", tmp_path / "t.csv"):
        frame.write_parquet(path, row_group_size=3000) if path.suffix == ".parquet" else frame.write_csv(path)
        reading = read(path, target="y", memory_mb=4, seed=3)
        data = reading.dataset
        assert data.rows is not None
        assert 0 < len(data) < 20_000
        assert np.all(np.diff(data.rows) > 0)
        assert data.frame["y"].to_list() == frame["y"].gather(data.rows).to_list()
        assert data.frame["n"].to_list() == [float(v) for v in frame["n"].gather(data.rows)]
        assert f"{len(data):,} rows drawn at random (seed 3)" in said(reading.notes)
        assert data.frame.equals(read(path, target="y", memory_mb=4, seed=3).dataset.frame)
        assert not np.array_equal(data.rows, read(path, target="y", memory_mb=4, seed=4).dataset.rows)
        assert data.frame.estimated_size() < 4 * 2**20


def test_a_sample_names_rows_as_the_file_counts_them(tmp_path: Path) -> None:
    cells = [str(i) for i in range(60_000)]
    cells[51_234] = "oops"
    pl.DataFrame({"a": cells, "y": [i % 7 for i in range(60_000)], "b": [float(i) for i in range(60_000)]}).write_parquet(tmp_path / "t.parquet")
    for seed in range(20):
        reading = read(tmp_path / "t.parquet", target="y", memory_mb=3, seed=seed)
        assert reading.dataset.rows is not None
        if 51_234 in reading.dataset.rows:
            assert "row 51235 holds 'oops'" in said(reading.notes)
            break
    else:
        pytest.fail("no seed drew the row")


@given(st.integers(1, 3000), st.floats(0.001, 1))
def test_a_sample_is_sorted_and_about_as_large_as_asked(n: int, share: float) -> None:
    rows = stream.sampled(n, share, 0)
    assert np.all(np.diff(rows) > 0)
    assert 0 <= rows[0] <= rows[-1] < n
    assert abs(len(rows) - n * share) <= 5 * np.sqrt(n * share) + 2


def test_columns_on_the_shelf_are_taken_over_and_others_are_written(tmp_path: Path) -> None:
    frame = mixed(500).drop("nothing")
    shelf = Shelf(tmp_path / "shelf")
    kept = pl.DataFrame([shelf.put(column) for column in frame])
    changed = kept.with_columns(pl.col("n") + 1).drop("x")
    shelf.keep(changed, tmp_path / "run")
    assert stored(tmp_path / "run").equals(changed)
    linked = [p for p in (tmp_path / "run").iterdir() if p.stat().st_nlink == 2]
    assert len(linked) == changed.width - 1
    shelf.keep(kept.filter(pl.col("flag")), tmp_path / "fewer")
    assert stored(tmp_path / "fewer").equals(kept.filter(pl.col("flag")))


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed(20_000).write_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(BudgetError, match="MB are free"):
        read(tmp_path / "t.parquet", target="y", memory_mb=4)


def test_private_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    column = np.random.default_rng(0).normal(size=600_000)
    pl.DataFrame({f"x{i}": column + i for i in range(60)} | {"y": column > 0}).write_parquet(tmp_path / "t.parquet", compression="uncompressed")
    size, peak = peak_of(f"data = assay.data.read.read({str(tmp_path / 't.parquet')!r}, target='y', memory_mb=700).dataset; size = data.frame.estimated_size()")
    assert size > 250
    assert peak < 0.5 * size


def test_rows_of_a_workbook_conform_to_a_schema(tmp_path: Path) -> None:
    schema = read(book(tmp_path / "b.xlsx", s=ROWS), target="会员").dataset.schema
    assert len(conform(tmp_path / "b.xlsx", schema)) == 30
