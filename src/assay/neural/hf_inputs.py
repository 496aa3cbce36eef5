"""Cells as a Hugging Face model reads them: token ids, pixels, waves; for teaching with torch and for answering without it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data import media
from assay.data.media import Broken
from assay.neural.augment import Changes, changed
from assay.neural.cells import pixels, waves
from assay.neural.export import Session
from assay.neural.fbank import fbank
from assay.neural.hf_folder import Settings
from assay.neural.rows import Rows

MOST_S, LEAST_S = 10.0, 0.5  # seconds of a sound
_BATCH, _BATCH_TOKENS = 32, 1024


class Inputs:
    """The reader of one kind, learnt from the rows that teach. length: tokens of a text, samples of a sound."""

    def __init__(self, settings: Settings, columns: Sequence[str], tokenizer: Path | None = None, length: int = 0) -> None:
        self.settings, self.columns, self.tokenizer, self.length = settings, list(columns), tokenizer, length
        self._opened: Any = None

    def learn(self, frame: pl.DataFrame) -> Inputs:
        """How long an input may be: what 98 % of some of these rows need."""
        few = frame.gather_every(max(1, len(frame) // 200))
        if self.settings.kind == "text":
            self.length = self.settings.most_tokens
            sizes = [len(ids) for name in self.columns for ids in self._tokens(few[name])]
            self.length = min(self.settings.most_tokens, max(16, int(np.quantile(sizes or [16], 0.98)) + 1))
            self._opened = None
        elif self.settings.kind == "audio":
            seconds = []
            for name in self.columns:
                for cell in few[name].drop_nulls():
                    try:
                        seconds.append(len(media.wave(cell, self.settings.rate)) / self.settings.rate)
                    except Broken:  # it is named where it is decoded
                        continue
            most = self.settings.frames * 0.01 if self.settings.frames else MOST_S
            self.length = int(self.settings.rate * min(most, max(LEAST_S, float(np.quantile(seconds or [1.0], 0.98)))))
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs, in the order in which the network takes them."""
        each = ("ids", "mask") if self.settings.kind == "text" else ("pixels",) if self.settings.kind == "image" else ("wave",)
        return tuple(f"{name}{i}" for i in range(len(self.columns)) for name in each)

    @property
    def row_bytes(self) -> int:
        """Memory of a row once it is decoded."""
        if self.settings.kind == "image":
            return self.settings.side**2 * (1 if self.settings.grey else 3) * len(self.columns)
        return (8 * self.length if self.settings.kind == "text" else 4 * (self.length + self.settings.frames * self.settings.bins)) * len(self.columns)

    @property
    def long(self) -> tuple[str, ...]:
        """Inputs whose second axis has any length."""
        return self.names if self.settings.kind == "text" else ()

    def read(self, frame: pl.DataFrame, *, threads: int = 2, cache: Path | None = None) -> Read:
        """Cells decoded, a column each; an absent one is an empty text, an all grey picture, silence. Raises InputError naming a broken one."""
        if self.settings.kind == "text":
            return Read([self._tokens(frame[name]) for name in self.columns], self.settings)
        if self.settings.kind == "image":
            return Read([pixels(frame[name], self.settings.side, grey=self.settings.grey, threads=threads, cache=cache) for name in self.columns], self.settings)
        seconds = self.length / self.settings.rate
        heard = [waves(frame[name], self.settings.rate, seconds, threads=threads, cache=cache) for name in self.columns]
        return Read([self._mel(wave) for wave in heard] if self.settings.bins else heard, self.settings)

    def _mel(self, heard: np.ndarray) -> np.ndarray:
        """Log-mel energies (n, frames, bins); nothing is 0, as in the package."""
        out = np.zeros((len(heard), self.settings.frames, self.settings.bins), dtype=np.float32)
        for first in range(0, len(heard), 64):
            part = fbank(heard[first : first + 64], self.settings.rate, self.settings.bins)[:, : self.settings.frames]
            out[first : first + len(part), : part.shape[1]] = part
        return out

    def opened(self) -> Any:
        """The tokenizer, which cuts at `length`."""
        if self._opened is None:
            from tokenizers import Tokenizer

            self._opened = Tokenizer.from_file(str(self.tokenizer))
            self._opened.no_padding()
            self._opened.enable_truncation(self.length)
        return self._opened

    def _tokens(self, cells: pl.Series) -> list[np.ndarray]:
        found = self.opened().encode_batch_fast([cell or "" for cell in cells])
        return [np.array(one.ids or [self.settings.padding], dtype=np.int64) for one in found]

    def dump(self, folder: Path) -> dict[str, Any]:
        if self.tokenizer is not None:
            shutil.copyfile(self.tokenizer, folder / "tokenizer.json")
        return {"settings": self.settings.json(), "columns": self.columns, "length": self.length}

    @classmethod
    def of(cls, packed: dict[str, Any], folder: Path) -> Inputs:
        settings = Settings.of(packed["settings"])
        return cls(settings, packed["columns"], folder / "tokenizer.json" if settings.kind == "text" else None, packed["length"])


class Read:
    """Decoded rows."""

    def __init__(self, columns: list[Any], settings: Settings) -> None:
        self.columns, self.settings = columns, settings
        self.sizes = np.array([max(len(column[i]) for column in columns) for i in range(len(columns[0]))]) if settings.kind == "text" else np.ones(len(columns[0]))

    def __len__(self) -> int:
        return len(self.columns[0])

    def some(self, rows: np.ndarray) -> Read:
        return Read([column[rows] if isinstance(column, np.ndarray) else [column[i] for i in rows] for column in self.columns], self.settings)

    def arrays(self, rows: np.ndarray) -> list[np.ndarray]:
        """The network's inputs of these rows; texts padded to the longest among them."""
        out = []
        for column in self.columns:
            if self.settings.kind == "text":
                some = [column[i] for i in rows]
                lengths = np.array([len(ids) for ids in some])
                mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
                ids = np.full(mask.shape, self.settings.padding, dtype=np.int64)
                ids[mask == 1] = np.concatenate(some)
                out += [ids, mask]
            else:
                out.append(np.ascontiguousarray(column[rows], dtype=np.float32))
        return out

    def said(self, session: Session, names: tuple[str, ...]) -> np.ndarray:
        """The outputs of an ONNX network, float32 (n, m); rows of like length are answered together."""
        order = np.argsort(self.sizes, kind="stable")
        parts, first = [], 0
        while first < len(order):
            most = max(1, min(_BATCH, _BATCH_TOKENS // int(self.sizes[order[min(first + _BATCH, len(order)) - 1]]))) if self.settings.kind == "text" else _BATCH
            parts.append(session.run(**dict(zip(names, self.arrays(order[first : first + most]), strict=True))))
            first += most
        return np.concatenate(parts)[np.argsort(order)]


class Taught(Rows):
    """Some of the rows read, with their answers. augment: pictures are moved and, by `flip`, mirrored; sounds are moved and made louder or softer."""

    def __init__(self, read: Read, rows: np.ndarray, target: np.ndarray, flip: str = "none") -> None:
        self.read, self.rows, self.target, self.flip = read, rows, target[rows], flip

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        import torch

        tensors = [torch.from_numpy(a) for a in self.read.arrays(self.rows[rows])]
        if rng is not None and self.read.settings.kind == "image":
            tensors = [changed(t.permute(0, 3, 1, 2), Changes(flip=self.flip, shift=0.08), rng).permute(0, 2, 3, 1).contiguous() for t in tensors]
        if rng is not None and self.read.settings.kind == "audio":
            tensors = [self._moved(t, rng) for t in tensors]
        return tuple(tensors)

    def _moved(self, sounds: Any, rng: np.random.Generator) -> Any:
        """Each sound up to a tenth earlier or later, and a little softer or louder."""
        import torch

        most = sounds.shape[1] // 10
        moves, gains = rng.integers(-most, most + 1, len(sounds)), rng.uniform(0.7, 1.3, len(sounds)).astype(np.float32)
        moved = torch.stack([sound.roll(int(move), 0) for sound, move in zip(sounds, moves, strict=True)])
        if self.read.settings.bins:
            return moved + 2 * torch.from_numpy(np.log(gains))[:, None, None]
        return moved * torch.from_numpy(gains)[:, None]
