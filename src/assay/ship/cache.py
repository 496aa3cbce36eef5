"""Bundles unpacked once a machine, under the digest of their manifest, so that weights can be mapped and shared by processes.

A folder of the cache appears by one rename and is never written to again. Each file is dated 1980-01-01: a file with another
date has been touched, which is what the quick check looks for.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from assay.errors import AssayError, BudgetError
from assay.ship.archive import CHUNK, Archive, refused
from assay.ship.formats.base import Entry
from assay.words import say

DATE = 315_532_800  # 1980-01-01, also the date of the members of a bundle
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def root() -> Path:
    """$ASSAY_CACHE/bundles, or ~/.cache/assay/bundles: made if missing, readable by its owner only."""
    base = os.environ.get("ASSAY_CACHE")
    folder = (Path(base) if base else Path.home() / ".cache" / "assay") / "bundles"
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat()
    if facts.st_mode & 0o022 or facts.st_uid not in (os.getuid(), 0):
        raise AssayError("Others can write to the cache folder '{folder}'. Take that right away, or set ASSAY_CACHE to a folder of your own.",
                         folder=str(folder))
    return folder


def held(archive: Archive, entries: dict[str, Entry], digest: str, *, verify: bool) -> Path:
    """The folder with the members of this archive, unpacked now or before.

    verify: every member is hashed, and an older copy is compared with it byte by byte. Otherwise an older copy is trusted if
    names, sizes and dates are right. Unpacking always hashes. A copy that was tampered with is replaced, with a warning.
    """
    home = root()
    folder = home / digest
    for _ in range(5):  # another process may make, replace or prune the same folder meanwhile
        if folder.is_dir():
            if _intact(archive, entries, folder, verify=verify):
                with contextlib.suppress(OSError):
                    os.utime(folder)  # `prune` drops what was not used for longest
                return folder
            warnings.warn(str(say("The cached copy '{folder}' had been changed; it was unpacked again.", folder=str(folder))), stacklevel=3)
            drop(digest)
        _unpack(archive, entries, home, folder)
        verify = False  # it has just been hashed
    raise AssayError("The cache folder '{folder}' changes faster than it can be read. Set ASSAY_CACHE to a folder of your own.",
                     folder=str(folder))


def drop(digest: str) -> None:
    """Take one bundle out of the cache. Processes that have mapped its files keep them."""
    home = root()
    with writing(home):
        gone = Path(tempfile.mkdtemp(prefix=".gone.", dir=home))
        with contextlib.suppress(FileNotFoundError):
            os.rename(home / digest, gone / "x")
        shutil.rmtree(gone, ignore_errors=True)


def prune(max_gb: float) -> float:
    """Drop the bundles that were not used for longest until the cache has at most `max_gb`. Returns the GB that it has then."""
    home = root()
    found = []
    for folder in home.iterdir():
        with contextlib.suppress(FileNotFoundError):
            used = folder.stat().st_mtime
            if folder.name.startswith("."):  # left by a process that was killed
                if time.time() - used > 86_400:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            found.append((used, folder.name, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**30))
    left = sum(size for _, _, size in found)
    for _, name, size in sorted(found):
        if left <= max_gb:
            break
        drop(name)
        left -= size
    return left


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """What goes wrong while writing to `place`, as one sentence: a full disk is a BudgetError."""
    try:
        yield
    except AssayError:
        raise
    except Exception as error:
        if disk_full(error):
            raise BudgetError("The disk is full: '{place}' could not be written, and nothing half-written was left. Free some space.",
                              place=str(place)) from None
        if isinstance(error, OSError):
            raise AssayError("'{place}' could not be written: {reason}. Choose another folder (for the cache: set ASSAY_CACHE).",
                             place=str(place), reason=str(error.strerror)) from None
        raise


def disk_full(error: Exception) -> bool:
    """Whether the disk was full. Libraries that are not written in Python say so in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(word in str(error) for word in ("No space left", "File too large", "Disk quota exceeded"))


def _intact(archive: Archive, entries: dict[str, Entry], folder: Path, *, verify: bool) -> bool:
    try:
        there = {path.relative_to(folder).as_posix(): path.lstat() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    except OSError:
        return False
    right = there.keys() == entries.keys() and all(
        stat.S_ISREG(facts.st_mode) and facts.st_size == entries[name].size and facts.st_mtime == DATE for name, facts in there.items())
    if not verify:
        return right
    for name, entry in entries.items():
        with contextlib.ExitStack() as stack:
            copy = stack.enter_context((folder / name).open("rb", buffering=0)) if right else None
            digest = hashlib.sha256()
            for chunk in archive.chunks(name):
                digest.update(chunk)
                right = right and copy is not None and copy.read(CHUNK) == chunk
        _same_digest(archive, name, entry, digest.hexdigest())
    return right


def _unpack(archive: Archive, entries: dict[str, Entry], home: Path, folder: Path) -> None:
    with writing(home):
        made = Path(tempfile.mkdtemp(prefix=".new.", dir=home))
        try:
            (made / "model").mkdir()
            for name, entry in entries.items():
                target = made / name
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = hashlib.sha256()
                with target.open("xb") as file:
                    for chunk in archive.chunks(name):
                        digest.update(chunk)
                        file.write(chunk)
                _same_digest(archive, name, entry, digest.hexdigest())
                target.chmod(0o400)
                os.utime(target, (DATE, DATE))
            try:
                os.rename(made, folder)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else another process was faster
                    raise
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _same_digest(archive: Archive, name: str, entry: Entry, found: str) -> None:
    if found != entry.sha256:
        raise refused(archive.shown, say("other bytes in '{name}' than its digest was made of", name=name),
                      say("the bytes that were packed"))
