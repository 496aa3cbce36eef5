"""How far a long job is: what is kept beside its output so that it can go on where it stopped, and the line that a terminal shows."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from assay.errors import InputError
from assay.ship.lines import Refused
from assay.words import say

_FORMAT = 1


@dataclass(frozen=True)
class Done:
    """What is finished. position: where the next chunk begins in the source. seen: a digest of the rows so far, of sources that may change.

    size, refused_size: bytes of the output and of the refused rows that count; what lies behind them was cut off by a kill.
    """

    chunks: int = 0
    rows: int = 0
    refused: int = 0
    position: dict[str, int] = field(default_factory=dict)
    seen: str = ""
    size: int = 0
    refused_size: int = 0


class FileOut:
    """Answers into one file, which appears in one rename when all rows are answered.

    `OUT.partial` grows chunk by chunk; `OUT.progress` says how many of its bytes count, and is replaced only after they are on the disk: a kill
    at any moment leaves a state that the next run goes on from. `OUT.rejected.csv` takes the rows that could not be read.
    """

    def __init__(self, out: Path, language: str = "en") -> None:
        self.out, self.language = out, language
        self.suffix = out.suffix.lower()
        self.partial, self.ledger = out.with_name(out.name + ".partial"), out.with_name(out.name + ".progress")
        self.rejected = out.with_name(out.name + ".rejected.csv")
        self._rejects = RefusedRows(self.rejected, language)
        self._job: dict[str, Any] = {}
        self._file: BinaryIO | None = None

    def begin(self, job: dict[str, Any], restart: bool) -> Done:
        """What an earlier run of the same job has finished. job: names the job: equal jobs give equal bytes. Raises InputError if another job is unfinished there."""
        import fcntl

        self._job = {"format": _FORMAT, **job}
        self._file = self.partial.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError("'{file}' is being written by another run of assay. Wait for it, or choose another name.", file=self.out.name) from None
        done = Done() if restart else self._known()
        if self._file.seek(0, 2) < done.size:  # only a file that somebody else has cut
            done = Done()
        self._file.truncate(done.size)
        self._file.seek(done.size)
        self._rejects.begin(done.refused_size)
        return done

    def _known(self) -> Done:
        try:
            kept = json.loads(self.ledger.read_text(encoding="utf-8"))
            job, done = kept["job"], Done(**kept["done"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Done()
        if other := next((k for k in {**self._job, **job} if self._job.get(k) != job.get(k)), None):
            assert self._file is not None
            self._file.close()
            what = {"source": say("the rows to answer"), "bundle": say("the bundle")}.get(other, say("the options"))
            raise InputError("'{file}' belongs to a run that stopped half-way, and since then {what} changed. Begin anew with --restart, or write to another file.",
                             file=self.ledger.name, what=what)
        return done

    def write(self, answers: pl.DataFrame, refused: list[Refused], done: Done) -> Done:
        """Add these answers; they count when this returns. done: without sizes, which are returned."""
        assert self._file is not None
        if answers.height:
            self._file.write(encoded(answers, self.suffix, header=self._file.tell() == 0))
        self._file.flush()
        os.fsync(self._file.fileno())
        done = Done(**asdict(done) | {"size": self._file.tell(), "refused_size": self._rejects.add(refused)})
        write_durably(self.ledger, json.dumps({"job": self._job, "done": asdict(done)}, ensure_ascii=False).encode())
        return done

    def finish(self) -> None:
        """The whole file in one rename, then nothing is left beside it but the refused rows."""
        assert self._file is not None
        if self.suffix == ".parquet":
            whole = self.out.with_name(self.out.name + ".tmp")
            try:
                _as_parquet(self.partial, whole)
                self._rejects.finish()
                os.replace(whole, self.out)
            finally:
                whole.unlink(missing_ok=True)
        else:
            self._rejects.finish()
            os.replace(self.partial, self.out)
        self.ledger.unlink(missing_ok=True)  # after the rename: a kill between them costs the work, never the bytes
        self._file.close()
        self.partial.unlink(missing_ok=True)
        at = os.open(self.out.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(at)
        finally:
            os.close(at)

    def forget(self) -> None:
        """Leave nothing behind: the rows cannot be answered as they are."""
        if self._file is not None:
            self._file.close()
        self._rejects.forget()
        for path in (self.partial, self.ledger):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """What is finished stays for the next run."""
        if self._file is not None:
            if not self._file.closed and not self.ledger.exists():  # nothing counts yet
                self.partial.unlink(missing_ok=True)
            self._file.close()
        self._rejects.close()


class RefusedRows:
    """`OUT.rejected.csv`: row and line in the source, and the sentence. It appears with the answers, or not at all."""

    def __init__(self, path: Path, language: str) -> None:
        self.path, self._language = path, language
        self._partial = path.with_name(path.name + ".partial")
        self._file: BinaryIO | None = None

    def begin(self, size: int) -> None:
        if size and not self._partial.exists() and self.path.exists():
            os.replace(self.path, self._partial)  # killed between the two renames at the end
        self._file = self._partial.open("a+b")
        self._file.truncate(size)
        self._file.seek(size)

    def add(self, refused: list[Refused]) -> int:
        assert self._file is not None
        if refused:
            text = io.StringIO(newline="")
            writer = csv.writer(text, lineterminator="\n")
            if self._file.tell() == 0:
                writer.writerow(["row", "line", "reason"])
            writer.writerows(["" if r.row is None else r.row + 1, r.line or "", r.reason.to(self._language)] for r in refused)
            self._file.write(text.getvalue().encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._file.tell()

    def finish(self) -> None:
        assert self._file is not None
        size = self._file.tell()
        self._file.close()
        if size:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)  # of an earlier run

    def forget(self) -> None:
        self.close()
        self._partial.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            if self._partial.exists() and not self._partial.stat().st_size:
                self._partial.unlink()


def encoded(answers: pl.DataFrame, suffix: str, *, header: bool) -> bytes:
    """Answers as bytes that may stand one below the other."""
    if suffix in (".csv", ".tsv"):
        return answers.write_csv(separator="\t" if suffix == ".tsv" else ",", include_header=header).encode()
    if suffix == ".parquet":
        import pyarrow as pa

        table = answers.to_arrow()
        held = pa.BufferOutputStream()
        with pa.ipc.new_stream(held, table.schema) as stream:
            stream.write_table(table)
        found = held.getvalue()
        return len(found).to_bytes(8, "little") + found.to_pybytes()
    return answers.write_ndjson().encode()


def _as_parquet(partial: Path, whole: Path) -> None:
    """The chunks of `encoded` as one parquet file, a chunk in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    with partial.open("rb") as file:
        while size := file.read(8):
            table = pa.ipc.open_stream(pa.py_buffer(file.read(int.from_bytes(size, "little")))).read_all()
            writer = writer or pq.ParquetWriter(whole, table.schema, compression="zstd")
            try:
                writer.write_table(table.cast(writer.schema))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise InputError("The key is of one type in some rows and of another in others, which parquet cannot hold ({error}). Write csv or jsonl.",
                                 error=str(error)[:200]) from None
    writer.close()
    with whole.open("rb+") as file:
        os.fsync(file.fileno())


def write_durably(path: Path, content: bytes) -> None:
    """Replace a small file in one step; the new content is on the disk before it has the name."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


class Bar:
    """One line on a terminal: rows so far, rows a second, time left. Silent where standard error is no terminal."""

    def __init__(self, language: str = "en", stream: Any = None) -> None:
        self._stream = stream or sys.stderr
        self._language = language
        self._shown = bool(getattr(self._stream, "isatty", lambda: False)())
        self._begin = self._last = time.monotonic()
        self._from: tuple[int, float] | None = None

    def start(self, rows: int, share: float) -> None:
        """What an earlier run had finished does not count for the speed."""
        self._from, self._begin = (rows, share), time.monotonic()

    def at(self, rows: int, share: float) -> None:
        now = time.monotonic()
        if not self._shown or (now - self._last < 0.2 and share < 1):
            return
        self._last = now
        before_rows, before = self._from or (0, 0.0)
        took = max(now - self._begin, 1e-9)
        left = took * (1 - share) / max(share - before, 1e-9)
        filled = round(24 * share)
        text = say("{rows:,} rows  {rate:,.0f} rows/s  {left} left", rows=rows, rate=(rows - before_rows) / took, left=clock(left)).to(self._language)
        self._stream.write(f"\r\x1b[K{'━' * filled}{'╌' * (24 - filled)} {100 * share:3.0f} %  {text}")
        self._stream.flush()

    def close(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def clock(seconds: float) -> str:
    """0:07, 12:30, 3:05:00."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
