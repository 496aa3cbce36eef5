"""Every answer ever paid for, on disk: a run repeats byte for byte, and a resumed run pays nothing twice."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from assay.errors import InputError


class Answers:
    """Every answer ever paid for: one SQLite file, committed answer by answer, shared by processes.

    path: None means $ASSAY_CACHE (a folder, or a file ending in .sqlite) or ~/.cache/assay. Only a digest of the
    question is kept, so neither rows nor keys are in the file. Raises InputError if it cannot be opened.
    """

    def __init__(self, path: Path | None = None) -> None:
        place = path or Path(os.environ.get("ASSAY_CACHE") or Path.home() / ".cache" / "assay")
        self.path = place if place.suffix == ".sqlite" else place / "llm.sqlite"
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)
            self.path.chmod(0o600)
            self._base.execute("pragma journal_mode=wal")
            self._base.execute("pragma synchronous=normal")  # a killed process loses nothing; a power cut the last answers
            self._base.execute("create table if not exists answers (question text primary key, answer text not null) without rowid")
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                "The answers on disk, '{path}', cannot be opened: {error}. Name another folder in the environment variable ASSAY_CACHE.",
                path=str(self.path), error=str(error),
            ) from None

    def get(self, question: str) -> dict[str, Any] | None:
        with self._lock:
            row = self._base.execute("select answer from answers where question = ?", (question,)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, question: str, answer: dict[str, Any]) -> None:
        with self._lock:
            self._base.execute("insert or ignore into answers values (?, ?)", (question, json.dumps(answer)))

    def close(self) -> None:
        self._base.close()
