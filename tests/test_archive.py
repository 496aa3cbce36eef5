"""The zip under a bundle: what it writes is the same every time, and what it reads holds nothing but plain data."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import BundleError
from assay.ship.archive import Archive, name_refused, opened, write
from assay.ship.content import SUFFIXES, content_refused

GOOD = {"a.json": b'{"a": 1}', "model/w.txt": b"tree\n", "model/x.onnx_data": bytes(range(200, 256)) * 4}


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    write(out, dict(members))
    return out.getvalue()


def saved(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "x.assay"
    path.write_bytes(raw)
    return path


def contents(path: Path, **limits: float) -> dict[str, bytes]:
    with opened(path, **limits) as archive:
        return {name: b"".join(archive.chunks(name)) for name in archive.members}


def refusal(path: Path, **limits: float) -> str:
    """The one sentence of the refusal, in English; its Chinese twin must exist."""
    with pytest.raises(BundleError) as caught:
        contents(path, **limits)
    english, chinese = str(caught.value), caught.value.text.to("zh")
    assert "\n" not in english
    assert english.endswith(".")
    assert any("一" <= c <= "鿿" for c in chinese)
    assert not any(word in chinese for word in ("expected", "member", "zip file", "directory"))
    return english


def with_names(*infos: zipfile.ZipInfo) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of a double name, and writes it
        for info in infos:
            archive.writestr(info, b"{}")
    return out.getvalue()


def renamed(raw: bytes, old: bytes, new: bytes) -> bytes:
    """The same archive, a member called otherwise; both names have one length, so no offset moves."""
    assert len(old) == len(new)
    assert raw.count(old) == 2
    return raw.replace(old, new)


def test_what_is_written_is_read_back(tmp_path):
    assert contents(saved(tmp_path, zipped(GOOD))) == GOOD


def test_the_bytes_depend_on_the_content_only(tmp_path):
    slow = tmp_path / "w.txt"
    slow.write_bytes(GOOD["model/w.txt"])
    os.utime(slow, (1, 1))
    out = io.BytesIO()
    write(out, {"model/x.onnx_data": GOOD["model/x.onnx_data"], "model/w.txt": slow, "a.json": GOOD["a.json"]})
    assert out.getvalue() == zipped(GOOD)


def test_any_zip_program_opens_it(tmp_path):
    with zipfile.ZipFile(saved(tmp_path, zipped(GOOD))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == GOOD


def test_a_member_of_over_4_gb_is_read_from_its_zip64_fields(tmp_path):
    size = 2**32 + 10
    path = tmp_path / "big.assay"
    name = b"a.txt"
    wide = struct.pack("<2H2Q", 1, 16, size, size)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(wide)) + name + wide
    start = len(local) + size
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(wide), 0, 0, 0, 0, 0) + name + wide
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(entry), 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry), 2**32 - 1, 0)
    with path.open("wb") as file:  # a hole: 4 GB that take no room on the disk
        file.write(local)
        file.seek(start)
        file.write(entry + end + locator + last)
    with opened(path) as archive:
        assert archive.members["a.txt"].size == size
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].file_size == size
    assert "GB" in refusal(path, max_gb=3)


@pytest.mark.parametrize("raw", [b"", b"PK", b"PK\x03\x04", b"not a zip" * 100, b"\x80\x05\x95" + b"\0" * 100, zipped({})])
def test_what_is_no_zip_file_is_refused(tmp_path, raw):
    refusal(saved(tmp_path, raw))


def test_a_path_that_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none.assay", tmp_path / "pipe", Path("a\0b")):
        with pytest.raises(BundleError, match="Give the path"), opened(path):
            pass


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path):
    raw = zipped(GOOD)
    for end in range(len(raw)):
        refusal(saved(tmp_path, raw[:end]))


@pytest.mark.parametrize("name", ["../x.json", "../../x.js", "/etc/x.txt", "a/../x.json", "a\\b\\c.json", "C:/x.txt", "./a.json", "a//b.json",
                                  ".hidden", "a/.ssh", "con.json", "a/nul.txt", "x.json ", "x.", "a b.json", "-rf.json", "a/", ""])
def test_a_name_that_leaves_the_folder_or_hides_is_refused(tmp_path, name):
    assert name_refused(name) is not None
    if name:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, b"{}")
        refusal(saved(tmp_path, out.getvalue()))


@pytest.mark.parametrize("name", ["modé.json", "mode\u0301.json", "模型.json", "a\u202ejson.txt", "\uff41.json", "a\u200b.json", "a\u2215b.json"])
def test_a_name_beyond_ascii_is_refused_so_that_no_two_names_look_alike(tmp_path, name):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, b"{}")
    assert refusal(saved(tmp_path, out.getvalue())).isascii()


def test_a_name_with_a_nul_is_not_cut_at_the_nul(tmp_path):
    refusal(saved(tmp_path, renamed(zipped({"a.json_xyz.txt": b"{}"}), b"a.json_xyz.txt", b"a.json\0xyz.txt")))


def test_double_names_are_refused_even_if_only_their_case_differs(tmp_path):
    twice = with_names(zipfile.ZipInfo("a.json"), zipfile.ZipInfo("a.json"))
    assert "two members" in refusal(saved(tmp_path, twice))
    assert "two members" in refusal(saved(tmp_path, with_names(zipfile.ZipInfo("a.json"), zipfile.ZipInfo("A.json"))))


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o020666, 0o010644, 0o140644])
def test_links_folders_and_devices_are_refused(tmp_path, mode):
    info = zipfile.ZipInfo("a.json")
    info.external_attr = mode << 16
    assert "link" in refusal(saved(tmp_path, with_names(info)))


def test_a_bomb_is_refused_before_a_byte_is_inflated(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b"0" * 50_000_000)
    tracemalloc.start()
    assert "compressed" in refusal(saved(tmp_path, out.getvalue()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_members_that_overlap_are_refused(tmp_path):
    """The quine of Fifield (2019): many entries of the directory that share one stretch of bytes."""
    raw = zipped({"a.json": b"{}" * 500})
    start = raw.index(b"PK\1\2")
    entry, name = raw[start:start + 46], b"a.json"
    entries = b"".join(entry + name.replace(b"a", bytes([c])) for c in b"abcdefgh")
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 8, 8, len(entries), start, 0)
    refusal(saved(tmp_path, raw[:start] + entries + end))


def test_a_member_inside_another_is_refused(tmp_path):
    inner = zipped({"b.json": b"{}"})
    inner = inner[:inner.index(b"PK\1\2")]
    raw = zipped({"a.txt": inner})
    start = raw.index(b"PK\1\2")
    second = zipped({"b.json": b"{}"})
    second = second[second.index(b"PK\1\2"):-22]
    entry = second[:42] + struct.pack("<I", start - len(inner)) + second[46:]
    directory = raw[start:-22] + entry
    refusal(saved(tmp_path, raw[:start] + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, len(directory), start, 0)))


def test_bytes_between_members_and_directory_are_refused_even_if_the_offsets_are_right(tmp_path):
    raw = zipped(GOOD)
    start = raw.index(b"PK\1\2")
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 3, 3, len(raw) - 22 - start, start + 6, 0)
    assert "no member" in refusal(saved(tmp_path, raw[:start] + b"hidden" + raw[start:-22] + end))


@pytest.mark.parametrize("place", [14, 18, 22, 30])
def test_a_member_and_the_directory_must_agree_on_checksum_sizes_and_name(tmp_path, place):
    raw = bytearray(zipped({"a.json": b"{}"}))
    raw[place] ^= 3
    assert "not what the directory says" in refusal(saved(tmp_path, bytes(raw)))


def test_many_members_are_refused_without_reading_them(tmp_path):
    few = {f"model/{i}.txt": b"" for i in range(1000)}
    assert len(contents(saved(tmp_path, zipped(few)))) == 1000
    assert "1001 members" in refusal(saved(tmp_path, zipped(few | {"a.json": b""})))
    assert "70000 members" in refusal(saved(tmp_path, zipped({f"{i}.txt": b"" for i in range(70_000)})))


def test_a_huge_total_is_refused_by_the_limit_that_the_caller_sets(tmp_path):
    path = saved(tmp_path, zipped({"a.txt": b"x" * 2_000_000}))
    assert contents(path, max_gb=0.01)
    assert "GB" in refusal(path, max_gb=0.001)


@pytest.mark.parametrize("change", [
    lambda raw: b"#!/bin/sh\n" + raw,
    lambda raw: raw + b"\0",
    lambda raw: raw[:-2] + b"\3\0abc",
    lambda raw: raw[:-2] + b"\3\0",
    lambda raw: raw[:-18] + b"\1" + raw[-17:],
    lambda raw: raw.replace(b"PK\1\2", b"hidden" + b"PK\1\2", 1),
    lambda raw: zipped({"b.json": b"{}"}) + raw,
])
def test_bytes_that_belong_to_no_member_are_refused(tmp_path, change):
    refusal(saved(tmp_path, change(zipped(GOOD))))


def test_encrypted_and_streamed_members_are_refused(tmp_path):
    for flag in (b"\x01\x00", b"\x08\x00"):
        raw = bytearray(zipped({"a.json": b"{}"}))
        raw[6:8] = flag
        at = raw.index(b"PK\1\2")
        raw[at + 8:at + 10] = flag
        assert "encrypted" in refusal(saved(tmp_path, bytes(raw)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_noise_in_an_archive_is_refused_in_one_sentence_or_changes_no_size(tmp_path_factory, data):
    raw = bytearray(zipped(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = saved(tmp_path_factory.mktemp("noise"), bytes(raw))
    try:
        found = contents(path)
    except BundleError:
        assert refusal(path).isprintable()
    else:
        assert {name_refused(name) for name in found} == {None}
        assert [len(value) for value in found.values()] == [len(value) for value in GOOD.values()]


HEADS = {
    ".json": b'{"a": [1]}', ".txt": "词表\n".encode(), ".safetensors": struct.pack("<Q", 2) + b"{}", ".onnx": b"\x08\x09\x12\x07pytorch",
    ".onnx_data": b"\x00\x01\x02", ".parquet": b"PAR1" + b"\0" * 8 + b"PAR1", ".gguf": b"GGUF\3\0\0\0", ".model": b"\n\x0e\n\x05<unk>",
}
FOREIGN = {
    "pickle 2": b"\x80\x02}q\x00.", "pickle 4": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0.", "pickle 5": b"\x80\x05N.", "zip": b"PK\x03\x04" + b"\0" * 40,
    "empty zip": b"PK\x05\x06" + b"\0" * 18, "gzip": b"\x1f\x8b\x08\0", "7z": b"7z\xbc\xaf\x27\x1c", "bzip2": b"BZh9", "xz": b"\xfd7zXZ\0",
    "zstd": b"\x28\xb5\x2f\xfd", "rar": b"Rar!\x1a\x07\x01", "tar": b"x.json" + b"\0" * 251 + b"ustar\0", "elf": b"\x7fELF\2", "npy": b"\x93NUMPY",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_member_is_known_by_its_head(suffix):
    raw = HEADS[suffix]
    assert content_refused(f"model/x{suffix}", len(raw), raw, raw[-32:]) is None


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_pickle_or_archive_is_refused_under_every_name(suffix, foreign):
    raw = FOREIGN[foreign]
    assert content_refused(f"model/x{suffix}", len(raw), raw[:4096], raw[-32:]) is not None


@pytest.mark.parametrize("name", ["x.pkl", "x.py", "x.so", "x.bin", "x.pt", "x.npy", "x.npz", "x.sh", "x.h5", "x.zip", "x", "x.json.exe", "x.yaml"])
def test_a_kind_that_can_carry_code_is_on_no_list(name):
    assert content_refused(name, 2, b"{}", b"{}") is not None


def test_a_zip_behind_honest_weights_is_seen():
    raw = HEADS[".safetensors"] + zipped({"a.json": b"{}"})
    assert content_refused("model/x.safetensors", len(raw), raw[:4096], raw[-32:]) is not None


def test_binary_noise_is_not_text():
    for raw in (b"tree\n\0", b"\xff\xfe", b"a\x1b[2J"):
        assert content_refused("model/x.txt", len(raw), raw, raw) is not None
    cut = ("x" * 4095 + "模").encode()  # the head ends inside a letter
    assert content_refused("model/x.txt", len(cut), cut[:4096], cut[-32:]) is None


def test_reading_is_bounded_by_the_member_not_by_the_file(tmp_path):
    path = saved(tmp_path, zipped(GOOD | {"model/y.onnx_data": bytes(3_000_000)}))
    with opened(path) as archive:
        assert isinstance(archive, Archive)
        with pytest.raises(BundleError, match="at most 3 bytes"):
            archive.read("a.json", 3)
        os.truncate(path, 1_000_000)
        with pytest.raises(BundleError, match="shorter"):
            b"".join(archive.chunks("model/y.onnx_data"))


def test_zipfile_is_only_used_to_write():
    """The standard reader forgives what this one refuses; nobody may slip back to it."""
    import assay.ship.archive as module

    source = Path(sys.modules[module.__name__].__file__ or "").read_text()
    assert source.count("zipfile.ZipFile(") == 1
    assert 'zipfile.ZipFile(file, "w"' in source


@pytest.mark.parametrize("length", [128, 384, 640, 896, 1152, 1408])
def test_weights_whose_header_length_looks_like_a_pickle_are_packed(length):
    from assay.ship.content import content_refused

    raw = length.to_bytes(8, "little") + b"{" + b" " * (length - 2) + b"}" + bytes(64)
    assert content_refused("model/boosting.safetensors", len(raw), raw[:4096], raw[-32:]) is None
    assert content_refused("model/boosting.safetensors", length, raw[:length], raw[-32:]) is not None, "a header longer than the file"
