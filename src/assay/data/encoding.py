"""The bytes of a file: what they look like, and text of any encoding as utf-8."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from assay.errors import ReadError
from assay.words import Text, say

CHUNK = 1 << 23
_SIGNATURES: tuple[tuple[bytes, Text], ...] = (
    (b"\x89PNG", say("a PNG image")),
    (b"\xff\xd8\xff", say("a JPEG image")),
    (b"GIF8", say("a GIF image")),
    (b"%PDF", say("a PDF document")),
    (b"\xd0\xcf\x11\xe0", say("an old Excel workbook")),
    (b"PAR1", say("a parquet table")),
    (b"ARROW1", say("an Arrow table")),
    (b"SQLite format 3", say("an SQLite database")),
    (b"\x89HDF", say("an HDF5 file")),
    (b"\x93NUMPY", say("a numpy array")),
    (b"7z\xbc\xaf\x27\x1c", say("a 7z archive")),
    (b"BZh", say("a bzip2 archive")),
    (b"\xfd7zXZ", say("an xz archive")),
    (b"\x28\xb5\x2f\xfd", say("a zstd archive")),
    (b"Rar!", say("a rar archive")),
    (b"RIFF", say("a sound or image file")),
    (b"\x7fELF", say("a program")),
    (b"\x80\x04\x95", say("a Python pickle, which is never opened here")),
    (b"\x80\x05\x95", say("a Python pickle, which is never opened here")),
)


def looks_like(head: bytes) -> Text | None:
    """What the first bytes of a file say it is, None if they may be text."""
    if head[:4] == b"PK\x03\x04":
        return say("an Excel workbook") if b"[Content_Types].xml" in head or b"xl/" in head else say("a zip archive")
    return next((what for start, what in _SIGNATURES if head.startswith(start)), None)


def short(path: Path | str) -> str:
    """A file's name, cut in the middle if it is very long."""
    name = Path(path).name
    return name if len(name) <= 80 else f"{name[:50]}…{name[-25:]}"


def as_utf8(path: Path, folder: Path, notes: list[Text]) -> Path:
    """`path` itself if it is utf-8 text, else a utf-8 copy in `folder`. Decided on every byte of the file.

    gzip is undone on the way. Raises ReadError with the byte offset and line of what is neither utf-8 nor gb18030.
    """
    name = short(path)
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:2] == b"\x1f\x8b":
        unpacked = folder / "unpacked.txt"
        with unpacked.open("wb") as target:
            for piece in _unzipped(path):
                target.write(piece)
        path = unpacked
        with path.open("rb") as file:
            head = file.read(4096)
    if what := looks_like(head):
        raise ReadError("'{file}' is not a table in text form: it looks like {what}. Save the table as CSV (UTF-8) or parquet.", file=name, what=what)
    if _utf16(head):
        raise ReadError("'{file}' is written in utf-16. Save it as UTF-8 (in Excel: 'CSV UTF-8') and try again.", file=name)
    bad = _undecodable(path, "utf-8")
    if bad is None:
        return path
    offset, line, byte = bad
    if byte == 0:
        raise ReadError(
            "'{file}' is not text: byte {offset} (line {line}) is a NUL byte. Save the table as CSV in UTF-8.",
            file=name, offset=offset, line=line)
    decoded = folder / "decoded.txt"
    if _undecodable(path, "gb18030", decoded) is None and _reads_chinese(path):
        notes.append(say("The file is not utf-8 but gb18030 (as Chinese Excel writes it); it was converted."))
        return decoded
    raise ReadError(
        "'{file}' is neither utf-8 nor gb18030: byte {offset} (line {line}) is 0x{byte}. Save it as UTF-8 (in Excel: 'CSV UTF-8') and try again.",
        file=name, offset=offset, line=line, byte=f"{byte:02X}",
    )


def _utf16(head: bytes) -> bool:
    some = head[:200]
    return head[:2] in (b"\xff\xfe", b"\xfe\xff") or max(some[::2].count(0), some[1::2].count(0)) > max(1, len(some) // 3)


def _unzipped(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while piece := file.read(CHUNK):
                yield piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ReadError(
            "'{file}' is a damaged or cut off gzip file: {error}. Copy or download it again.", file=short(path), error=str(error)
        ) from None


def _undecodable(path: Path, encoding: str, copy: Path | None = None) -> tuple[int, int, int] | None:
    """(offset, line, byte) of the first byte that `encoding` cannot hold or that is NUL, None if all is well.

    copy: where to write the text as utf-8.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, lines = 0, 1
    with path.open("rb") as file, (copy or Path("/dev/null")).open("wb") as target:
        while True:
            piece = file.read(CHUNK)
            if (nul := piece.find(0)) >= 0:
                return offset + nul, lines + piece.count(b"\n", 0, nul), 0
            held = decoder.getstate()[0] if encoding == "utf-8" else b""
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                whole = held + piece
                at = max(0, min(error.start, len(whole) - 1))
                return offset - len(held) + at, lines + whole.count(b"\n", 0, at), whole[at] if whole else 0
            if copy:
                target.write(text.encode())
            if not piece:
                return None
            offset += len(piece)
            lines += piece.count(b"\n")


def _reads_chinese(path: Path) -> bool:
    """Western text in Windows-1252 often decodes as gb18030 too, but into rare signs whose second byte is an ASCII letter."""
    common = rare = 0
    with path.open("rb") as file:
        while (piece := file.read(CHUNK)) and common + rare < 10_000:
            pairs = re.findall(rb"[\x81-\xfe][\x40-\xfe]", piece)
            common += sum(p[0] >= 0xA1 and p[1] >= 0xA1 for p in pairs)
            rare += sum(p[1] < 0x80 for p in pairs)
    return common > rare
