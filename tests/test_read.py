"""Reading: encodings, separators, broken files, other libraries, and new rows for a trained model."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import math
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.data import csv as delimited
from assay.data import encoding
from assay.data.load import load
from assay.data.read import conform, read
from assay.errors import InputError, ReadError

DATA = Path(__file__).parents[2] / "shared" / "data"


def put(folder: Path, content: bytes | str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(source: object, **options: object) -> str:
    with pytest.raises(ReadError) as error:
        read(source, **options)  # type: ignore[arg-type]
    assert "{" not in error.value.text.to("zh").replace('{"', "")
    return str(error.value)


def said(notes: list) -> str:
    return " ".join(map(str, notes))


# ---- encodings


@pytest.mark.parametrize("written", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_chinese_tables_read_alike_in_every_encoding_and_separator(tmp_path: Path, written: str, separator: str) -> None:
    text = "城市,数量\n北京,1\n上海,2.5\n北京,\n".replace(",", separator)
    reading = read(put(tmp_path, text.encode(written)))
    assert reading.dataset.frame.to_dict(as_series=False) == {"城市": ["北京", "上海", "北京"], "数量": [1.0, 2.5, None]}
    assert ("gb18030" in said(reading.notes)) == (written == "gb18030")


def test_a_first_chinese_character_far_down_is_still_gb18030(tmp_path: Path) -> None:
    rows = b"name,x\n" + b"plain words,12.5\n" * 900_000
    reading = read(put(tmp_path, rows + "北京,3\n".encode("gb18030")))
    assert reading.dataset.frame["name"][-1] == "北京"
    assert len(reading.dataset) == 900_001


def test_a_character_cut_by_the_piece_border_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK", 7)
    monkeypatch.setattr(delimited, "CHUNK", 7)
    text = 'a,b\n"北京,\n市",1\n"say ""hi""",2\n上海,3\n'
    for written in ("utf-8", "gb18030"):
        frame = read(put(tmp_path, text.encode(written))).dataset.frame
        assert frame.to_dict(as_series=False) == {"a": ["北京,\n市", 'say "hi"', "上海"], "b": [1.0, 2.0, 3.0]}


def test_bytes_of_no_encoding_are_named_with_offset_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"a,b\nx,1\ny\xff\xff,2\n"
    for piece in (1 << 20, 3, 1):
        monkeypatch.setattr(encoding, "CHUNK", piece)
        sentence = refused(put(tmp_path, content))
        assert "byte 9 (line 3) is 0xFF" in sentence


def test_western_text_is_not_taken_for_chinese(tmp_path: Path) -> None:
    sentence = refused(put(tmp_path, "nom,x\nRené est là,1\nété même,2\ngarçon,3\n".encode("cp1252")))
    assert "neither utf-8 nor gb18030" in sentence


@pytest.mark.parametrize("written", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_named(tmp_path: Path, written: str) -> None:
    assert "utf-16" in refused(put(tmp_path, "a,b\n1,2\n3,4\n".encode(written)))


def test_gzip_is_undone_and_a_cut_one_refused(tmp_path: Path) -> None:
    packed = gzip.compress("城市,x\n北京,1\n上海,2\n".encode("gb18030") * 1)
    assert read(put(tmp_path, packed, "t.csv.gz")).dataset.frame["城市"].to_list() == ["北京", "上海"]
    assert "gzip" in refused(put(tmp_path, packed[:-12], "t.csv.gz"))


# ---- rows and columns


@pytest.mark.parametrize(("row", "found"), [("5,6", 2), ("5,6,7,8", 4)])
@pytest.mark.parametrize("lines", [3, 4000])
def test_a_ragged_row_is_named_by_its_line(tmp_path: Path, row: str, found: int, lines: int) -> None:
    sentence = refused(put(tmp_path, "a,b,c\n" + '1,"x\ny",3\n' * lines + row + "\n1,2,3\n"))
    assert f"Line {2 + 2 * lines} " in sentence
    assert f"{found} fields, the header has 3" in sentence


def test_an_unclosed_quotation_mark_is_named_by_its_line(tmp_path: Path) -> None:
    assert "opens on line 3" in refused(put(tmp_path, 'a,b\n1,x\n2,"y, z\n3,z\n4,w\n'))
    assert "starts on line 3" in refused(put(tmp_path, 'a,b\n1,x\n2,"y, z\n3,"z"\n4,w\n'))
    reading = read(put(tmp_path, 'a,b\n1,x\n2,"y\n3,z\n4,w\n'))  # fits only if the mark is a character like any other
    assert reading.dataset.frame["b"].to_list() == ["x", '"y', "z", "w"]
    assert "Quotation marks" in said(reading.notes)


def test_quotation_marks_inside_words_do_no_harm(tmp_path: Path) -> None:
    path = put(tmp_path, 'a\tb\n5" pipe\t1\nhe said "no, never\t2\n', "t.tsv")
    assert read(path).dataset.frame["a"].to_list() == ['5" pipe', 'he said "no, never']
    mixed = put(tmp_path, 'a,b\n5" pipe,1\n"x, y",2\n')
    assert read(mixed).dataset.frame["a"].to_list() == ['5" pipe', "x, y"]


def test_blank_lines_and_a_missing_last_newline_make_no_rows(tmp_path: Path) -> None:
    for end in ("\n", "\r\n"):
        text = end.join(["", "a,b", "1,x", "", "2,y", "", "3,z"])
        assert read(put(tmp_path, text)).dataset.frame["a"].to_list() == [1, 2, 3]
    assert read(put(tmp_path, "a\n1\n\n2\n")).dataset.frame["a"].to_list() == [1, 2]
    assert read(put(tmp_path, "a,b\r1,x\r2,y")).dataset.frame["b"].to_list() == ["x", "y"]


def test_names_have_to_differ_and_empty_ones_are_filled(tmp_path: Path) -> None:
    assert "more than one of: b" in refused(put(tmp_path, "a,b,b\n1,2,3\n"))
    reading = read(put(tmp_path, "a, ,c\n1,2,3\n2,3,4\n"))
    assert reading.dataset.frame.columns == ["a", "column_2", "c"]
    assert "column_2" in said(reading.notes)


def test_an_odd_cell_far_beyond_the_sample_makes_labels_not_a_crash(tmp_path: Path) -> None:
    rows = "".join(f"{i % 97},{i}.5\n" for i in range(30_000))
    reading = read(put(tmp_path, "a,b\n" + rows + "oops,7\n" + rows))
    kinds = {c.name: c.kind for c in reading.dataset.schema.columns}
    assert kinds == {"a": "category", "b": "number"}
    assert "row 30001 holds 'oops'" in said(reading.notes)


@pytest.mark.parametrize(("content", "word"), [
    (b"", "empty"), (b"\n\n", "empty"), (b"a,b\n", "no rows"), (b"a,b", "no rows"), (b"\xef\xbb\xbf", "empty"),
    (b"\x89PNG\r\n\x1a\n0000", "PNG"), (b"PK\x03\x04 [Content_Types].xml", "Excel"), (b"PK\x03\x04abc", "zip"),
    (b"a,b\n1,\x00\n", "NUL"), (b"%PDF-1.7", "PDF"), (b"PAR1abcdefgh", "cut off"), (b"PAR1abcdefghPAR1", "damaged"),
    (b'[{"a": 1}]', "JSON"),
])
def test_what_is_no_table_is_named(tmp_path: Path, content: bytes, word: str) -> None:
    assert word in refused(put(tmp_path, content))


def test_folders_and_absent_files_are_named_with_the_nearest_name(tmp_path: Path) -> None:
    put(tmp_path, "a\n1\n", "complaints.csv")
    assert "Did you mean 'complaints.csv'" in refused(tmp_path / "complaint.csv")
    (tmp_path / "empty").mkdir()
    assert "folder 'empty' is empty" in refused(tmp_path / "empty")
    assert "does not exist" in refused(tmp_path / "no" / "x.csv")
    assert refused(tmp_path / ("x" * 400 + ".csv"))
    assert refused(42)


def test_parquet_and_json_lines_keep_their_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1, None], "b": [True, False], "t": [datetime.date(2024, 1, 2)] * 2, "image": [b"x", b"y"]})
    frame.write_parquet(tmp_path / "t.parquet")
    reading = read(tmp_path / "t.parquet")
    assert reading.dataset.frame.to_dict(as_series=False) == {
        "n": [1.0, None], "b": ["true", "false"], "t": [datetime.datetime(2024, 1, 2)] * 2}
    assert "image" in said(reading.notes)
    whole = (tmp_path / "t.parquet").read_bytes()
    assert "cut off" in refused(put(tmp_path, whole[:-20], "u.parquet"))
    lines = '{"a": 1, "b": "x"}\n{"a": "?", "b": "y"}\n\n{"b": "x"}\n'
    assert read(put(tmp_path, lines, "t.jsonl")).dataset.frame["a"].to_list() == [1.0, None, None]
    assert "Line 2" in refused(put(tmp_path, '{"a": 1}\n{"a": \n', "t.jsonl"))
    assert "Line 1" in refused(put(tmp_path, "3\n", "t.jsonl"))


def test_frames_of_other_libraries_read_like_files(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pd = pytest.importorskip("pandas")
    columns = {"x": [1.5, math.nan, 3.0], "city": ["a", None, "a"]}
    expected = {"x": [1.5, None, 3.0], "city": ["a", None, "a"]}
    mixed = pd.DataFrame(columns)
    mixed["odd"] = [1, "two", None]
    sources = [pl.DataFrame(columns), pl.LazyFrame(columns), pa.table(columns), pd.DataFrame(columns)]
    assert all(read(s).dataset.frame.to_dict(as_series=False) == expected for s in sources)
    assert read(mixed).dataset.frame["odd"].to_list() == ["1", "two", None]


# ---- names


def test_a_misspelt_column_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    path = put(tmp_path, "id,text,category\n1,a,b\n2,c,d\n")
    with pytest.raises(InputError) as error:
        read(path, target="categry")
    assert str(error.value) == "No column is called 'categry'. The file has: id, text, category. Did you mean 'category'?"
    for options in ({"group": "grp"}, {"time": "when"}, {"kinds": {"txt": "text"}}, {"kinds": {"text": "words"}}, {"target_as": "x"}):
        with pytest.raises(InputError):
            read(path, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        read(path, target="text", group="text")


# ---- laws

CELLS = st.text(alphabet=st.sampled_from(list("ab ,;|\t\"'\n北京é0")), min_size=1, max_size=8).filter(lambda s: s.strip() == s and s)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELLS, st.floats(allow_nan=False, allow_infinity=False)), min_size=2, max_size=12),
       st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["utf-8", "utf-8-sig", "gb18030"]), st.sampled_from(["\n", "\r\n"]))
def test_writing_and_reading_keeps_every_value(tmp_path: Path, rows: list, separator: str, written: str, end: str) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    writer.writerow(["words", "amount", "城市"])
    for words, amount in rows:
        writer.writerow([words, repr(amount), "北京市"])
    path = put(tmp_path, out.getvalue().encode(written))
    frame = read(path, kinds={"words": "text", "amount": "number", "城市": "category"}).dataset.frame
    assert frame["words"].to_list() == [w for w, _ in rows]
    assert frame["amount"].to_list() == [a for _, a in rows]


PIECES = st.sampled_from(["a", "2.5", "", '"x, y"', '"a\n b"', '"q""z"', '5"', "NA", '""', "1/2/2024", " ", "北京", '"1"', '"', "1,2"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(PIECES, PIECES, st.sampled_from(["\n", "\n", "\n\n"])), min_size=1, max_size=9), st.sampled_from([3, 7, 1 << 20]))
def test_rows_are_split_as_the_csv_module_splits_them_or_the_file_is_refused(tmp_path: Path, rows: list, piece: int) -> None:
    text = "h1,h2\n" + "".join(f"{a},{b}{end}" for a, b, end in rows)
    path = put(tmp_path, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "CHUNK", piece)
        patch.setattr(delimited, "CHUNK", piece)
        try:
            frame, notes = load(path)
        except ReadError:
            return
    if "Quotation" in said(notes) or "separator" in said(notes):
        return
    expected = [r for r in csv.reader(io.StringIO(text, newline="")) if any(r)][1:]
    assert [[c or None if not isinstance(c, float) else repr(c) for c in row] for row in frame.rows()] == [
        [cell or None if not isinstance(f, float) else repr(float(cell)) for cell, f in zip(row, read_row, strict=True)]
        if len(row) == 2 else row for row, read_row in zip(expected, frame.rows(), strict=True)]


COLUMN = st.one_of(*[st.lists(st.none() | cells, min_size=3, max_size=3) for cells in (
    st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text(max_size=4), st.dates(), st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-1000, max_value=1000), st.sampled_from(["1", "2024-01-01", "01", "NA", "3/4/2020"]))])


@settings(max_examples=300, deadline=None)
@given(COLUMN, st.sampled_from(["x", "id", "date", "No"]), st.sampled_from([None, "number", "category", "text", "time", "id"]))
def test_a_table_conforms_to_its_own_schema_unchanged(cells: list, name: str, kind: str | None) -> None:
    frame = pl.DataFrame({name: pl.Series(cells, strict=False), "z": [1, 2, 3]})
    try:
        data = read(frame, kinds={name: kind} if kind else None).dataset
    except InputError:
        return  # the cells contradict the kind
    promised = {"number": pl.Float64, "time": pl.Datetime("us")}
    assert all(data.frame[c.name].dtype == promised.get(c.kind, pl.String) for c in data.schema.columns)
    assert conform(frame, data.schema).frame.equals(data.frame)


# ---- new rows


def trained(tmp_path: Path):
    path = put(tmp_path, "id,age,city,note,when,y\n" + "".join(
        f"A{i:04d},{20 + i % 50},{['北京', '上海'][i % 2]},this is a longer note number {i} about it,{i % 28 + 1}/2/2024,{i % 2}\n" for i in range(60)))
    return path, read(path, target="y").dataset


def test_new_rows_come_into_the_schema_whatever_their_order(tmp_path: Path) -> None:
    path, data = trained(tmp_path)
    assert [c.kind for c in data.schema.columns[:5]] == ["id", "number", "category", "text", "time"]
    asked = conform(path, data.schema)
    assert asked.frame.equals(data.asked().frame)
    rows = [{"when": "3/2/2024", "extra": 1, "note": "x y", "city": "never seen", "age": "41"}]
    row = conform(rows, data.schema).frame.row(0, named=True)
    assert row == {"id": None, "age": 41.0, "city": "never seen", "note": "x y", "when": datetime.datetime(2024, 2, 3)}
    plain = json.loads(json.dumps([{**r, "when": str(r["when"])} for r in data.frame.drop("y").to_dicts()]))
    assert conform(plain, data.schema).frame.equals(data.asked().frame)


def test_rows_that_do_not_fit_are_named(tmp_path: Path) -> None:
    _, data = trained(tmp_path)
    good = {"age": 1, "city": "a", "note": "b", "when": "2024-01-02"}
    for bad, words in (({"age": "old"}, ["age", "row 2", "old"]), ({"when": "soon"}, ["when", "row 2", "soon"]), ({"note": [1]}, ["note", "row 2"])):
        with pytest.raises(InputError) as error:
            conform([good, good | bad], data.schema)
        assert all(w in str(error.value) for w in words)
    with pytest.raises(InputError) as error:
        conform([{"Age": 1, "city": "a", "note": "b", "when": None}], data.schema)
    assert "Age -> age" in str(error.value)
    for rows in ([], [3]):
        with pytest.raises(InputError):
            conform(rows, data.schema)


@pytest.mark.parametrize(("value", "label"), [(True, "true"), ("True", "true"), (2, "2"), (2.0, "2"), ("2.0", "2"), ("007", "007"), ("", None), (None, None)])
def test_a_label_is_the_same_label_however_it_is_sent(value: object, label: str | None) -> None:
    schema = read(pl.DataFrame({"c": ["a", "b", "a"], "x": [1, 2, 3]})).dataset.schema
    assert conform([{"c": value, "x": 1}], schema).frame["c"].to_list() == [label]


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of open datasets is not beside the checkout")
@pytest.mark.parametrize(("name", "target"), [("06_adult/train.csv", "income"), ("05_bike_sharing_hourly/bike_hour.csv", "cnt"),
                                          ("08_telco_churn/telco_churn.csv", "Churn"), ("08_online_retail_germany/online_retail_germany.csv", "Quantity")])
def test_the_rows_of_a_real_file_conform_to_their_own_schema(name: str, target: str) -> None:
    data = read(DATA / name, target=target).dataset
    assert conform(DATA / name, data.schema).frame.equals(data.asked().frame)
