"""The safe zip under a bundle: a writer whose bytes depend on the content only, and a reader that trusts no byte.

The reader takes a narrow zip: stored members that lie back to back from the first byte to the directory, plain names, no
comments, no data descriptors. What is left out is what attacks need (bombs, overlaps, links, hidden bytes, two readings of one
file). It is written out with `struct` because the zipfile module forgives too much: it cuts names at NUL, skips leading bytes,
and keeps doubles.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from assay.errors import BundleError
from assay.words import Text, say

MOST_MEMBERS = 1000
CHUNK = 1 << 20
HEAD = 4096  # bytes of a member that its content is judged by
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{0,4}}")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)", re.IGNORECASE)  # devices on Windows
_LOCAL, _ENTRY, _END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
_LOCATOR, _END64 = struct.Struct("<4sIQI"), struct.Struct("<4sQ2H2I4Q")
_FULL = 0xFFFFFFFF  # "the real number stands in the zip64 field"


@dataclass(frozen=True)
class Member:
    """Where the bytes of one file lie in the archive."""

    name: str
    offset: int
    size: int
    crc: int


class Archive:
    """An open archive whose directory has been checked. Nothing has been said yet about what its members hold."""

    def __init__(self, file: BinaryIO, shown: str, members: dict[str, Member]) -> None:
        self._file, self.shown, self.members = file, shown, members

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a member, a megabyte at a time."""
        member = self.members[name]
        self._file.seek(member.offset)
        left = member.size
        while left:
            chunk = self._file.read(min(CHUNK, left))
            if not chunk:  # the file shrank while it was read
                raise refused(self.shown, say("it became shorter while it was read"), say("a file that nobody writes to"))
            left -= len(chunk)
            yield chunk

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a small member; BundleError if it is larger than `most`."""
        size = self.members[name].size
        if size > most:
            raise refused(self.shown, say("its member '{name}' has {size} bytes", name=name, size=size),
                          say("at most {most} bytes", most=most))
        return b"".join(self.chunks(name))

    def ends(self, name: str) -> tuple[bytes, bytes]:
        """The first 4096 and the last 32 bytes of a member."""
        member = self.members[name]
        self._file.seek(member.offset)
        head = self._file.read(min(HEAD, member.size))
        self._file.seek(member.offset + max(0, member.size - 32))
        return head, self._file.read(min(32, member.size))


def refused(shown: str, found: Text, expected: Text) -> BundleError:
    """The one sentence of every refusal: what was found, what was expected, the next step."""
    return BundleError(
        "'{file}' was not opened: {found}; expected: {expected}. Copy the file again from where it was made, or pack it again.",
        file=shown, found=found, expected=expected,
    )


def printable(value: object) -> str:
    """A name from a foreign file, safe to show in a terminal: ASCII, at most 60 characters."""
    text = ascii(value)[1:-1] if isinstance(value, str) else ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def name_refused(name: str) -> Text | None:
    """None if a member may be called so, else the reason. ASCII only: then no two names can look or normalise alike."""
    if not _NAME.fullmatch(name) or any(part.endswith(".") or _RESERVED.match(part) for part in name.split("/")):
        return say("a member is called '{name}'", name=printable(name))
    return None


@contextmanager
def opened(path: str | Path, *, max_gb: float = 8.0) -> Iterator[Archive]:
    """The archive at `path`, its directory checked. Raises BundleError, one sentence, for whatever is not as it should be."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, a device never ends
            raise BundleError("'{path}' is not a file. Give the path of a .assay file.", path=str(path))
        file = path.open("rb")
        length = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BundleError("The bundle '{path}' could not be opened: {reason}. Give the path of a .assay file.",
                          path=str(path), reason=str(getattr(error, "strerror", error))) from None
    with file:
        try:
            members = _directory(file, path.name, length, int(max_gb * 2**30))
        except (struct.error, OSError, OverflowError):
            raise refused(path.name, say("its directory is cut off"), say("a complete zip file")) from None
        yield Archive(file, path.name, members)


def _directory(file: BinaryIO, shown: str, length: int, most_bytes: int) -> dict[str, Member]:
    if length == 0:
        raise refused(shown, say("it is empty"), say("a zip file written by assay"))
    if _at(file, 0, 4) != b"PK\x03\x04":
        raise refused(shown, say("it does not begin like a zip file"), say("a zip file written by assay"))
    count, size, start, end = _ending(file, shown, length)
    if not 0 < count <= MOST_MEMBERS:
        raise refused(shown, say("it has {count} members", count=count), say("1 to {most} members", most=MOST_MEMBERS))
    if start + size != end or size > MOST_MEMBERS * (_ENTRY.size + 600):
        raise refused(shown, say("its directory is not where the file says"), say("a complete zip file, nothing before or behind it"))
    directory = _at(file, start, size)
    members: dict[str, Member] = {}
    folded: set[str] = set()
    at = position = total = 0
    for _ in range(count):
        entry = _ENTRY.unpack_from(directory, at)
        names, extra_size, comment = entry[10:13]
        raw = directory[at + _ENTRY.size:at + _ENTRY.size + names]
        extra = directory[at + _ENTRY.size + names:at + _ENTRY.size + names + extra_size]
        at += _ENTRY.size + names + extra_size + comment
        member = _member(file, shown, entry, raw, extra, position)
        if member.name.lower() in folded:  # also on disks that do not tell A from a
            raise refused(shown, say("two members are called '{name}'", name=member.name), say("each name once"))
        total += member.size
        if total > most_bytes:
            raise refused(shown, say("its members have over {found} GB", found=round(total / 2**30, 1)),
                          say("at most {most} GB (the limit can be raised)", most=round(most_bytes / 2**30, 1)))
        position = member.offset + member.size
        members[member.name] = member
        folded.add(member.name.lower())
    if at != size or position != start:
        raise refused(shown, say("there are bytes that belong to no member"), say("members back to back, then the directory"))
    return members


def _ending(file: BinaryIO, shown: str, length: int) -> tuple[int, int, int, int]:
    """(members, size of the directory, its start, the position right behind it), from the record at the very end."""
    end = length - _END.size
    if end < 0:
        raise refused(shown, say("it has {n} bytes only", n=length), say("a complete zip file"))
    sign, disk, first, here, count, size, start, comment = _END.unpack(_at(file, end, _END.size))
    if sign != b"PK\x05\x06" or comment or disk or first or here != count:
        raise refused(shown, say("it does not end like a zip file"), say("a complete zip file, nothing before or behind it"))
    if end < _LOCATOR.size + _END64.size or _at(file, end - _LOCATOR.size, 4) != b"PK\x06\x07":
        return count, size, start, end
    end64 = end - _LOCATOR.size - _END64.size
    _, disk, at, disks = _LOCATOR.unpack(_at(file, end - _LOCATOR.size, _LOCATOR.size))
    short = (count, size, start)
    sign, _, _, _, disk64, first, here, count, size, start = _END64.unpack(_at(file, end64, _END64.size))
    one = short == (min(count, 0xFFFF), min(size, _FULL), min(start, _FULL)) and here == count and disks == 1
    if sign != b"PK\x06\x06" or at != end64 or disk or disk64 or first or not one:
        raise refused(shown, say("it does not end like a zip file"), say("a complete zip file, nothing before or behind it"))
    return count, size, start, end64


def _member(file: BinaryIO, shown: str, entry: tuple, raw: bytes, extra: bytes, position: int) -> Member:
    sign, _, _, flags, method, _, _, crc, packed, size, _, _, comment, disk, _, attributes, offset = entry
    name = raw.decode("ascii", "backslashreplace")
    reason = name_refused(name)
    if reason is not None:
        raise refused(shown, reason, say("plain relative names of letters, digits, dots, dashes and underscores"))
    wide = _wide(extra, [size, packed, offset])
    if sign != b"PK\x01\x02" or comment or disk or wide is None or flags & ~0x800:
        raise refused(shown, say("the directory entry of '{name}' is damaged or encrypted", name=name), say("a plain zip entry"))
    size, packed, offset = wide
    if method != 0 or size != packed:
        raise refused(shown, say("the member '{name}' is compressed", name=name), say("stored members, so that none can swell"))
    if (attributes >> 16) & 0o170000 not in (0, 0o100000) or attributes & 0x10:
        raise refused(shown, say("the member '{name}' is a link or a folder", name=name), say("plain files only"))
    local = _LOCAL.unpack(_at(file, offset, _LOCAL.size))
    data = offset + _LOCAL.size + local[9] + local[10]
    rest = _at(file, offset + _LOCAL.size, local[9] + local[10])
    beside = rest[local[9]:]
    if beside == struct.pack("<2H2Q", 1, 16, size, size):
        sizes = {local[7], local[8]} <= {size, _FULL}
    else:
        sizes = not beside and local[7] == local[8] == size
    same = local[0] == b"PK\x03\x04" and local[2] == flags and local[3] == method and local[6] == crc and rest[:local[9]] == raw
    if offset != position or not same or not sizes:
        raise refused(shown, say("the member '{name}' is not what the directory says", name=name),
                      say("members back to back, then the directory"))
    return Member(name, data, size, crc)


def _wide(extra: bytes, numbers: list[int]) -> list[int] | None:
    """The numbers, those that are too large for 32 bits taken from the zip64 field; None if the field is not exactly that."""
    wanted = [i for i, number in enumerate(numbers) if number == _FULL]
    if not wanted:
        return numbers if not extra else None
    if len(extra) != 4 + 8 * len(wanted) or struct.unpack_from("<2H", extra) != (1, 8 * len(wanted)):
        return None
    for i, number in zip(wanted, struct.unpack_from(f"<{len(wanted)}Q", extra, 4), strict=True):
        numbers[i] = number
    return numbers


def _at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    found = file.read(size)
    if len(found) != size:
        raise struct.error("cut off")
    return found


def write(file: BinaryIO, members: dict[str, Path | bytes]) -> None:
    """Stored members in the order of their names, each dated 1980-01-01: equal content gives equal bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            source = members[name]
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o100644 << 16  # Unix, so that another system writes the same bytes
            info.file_size = len(source) if isinstance(source, bytes) else source.stat().st_size
            with archive.open(info, "w") as target:
                if isinstance(source, bytes):
                    target.write(source)
                else:
                    with source.open("rb") as stream:
                        while chunk := stream.read(CHUNK):
                            target.write(chunk)
