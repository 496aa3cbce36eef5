"""What passed between two flushes, and the few of them that a check looks back on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assay.errors import InputError
from assay.watch.sketch import Numbers, Sketches, packed, unpacked

PANES = 64
LOOK_BACK_S = 30 * 86400.0


@dataclass
class Pane:
    """Sketches of the requests from start to end. sketches: {'rows', 'more', 'answers': Sketches}. expected: of the losses that answers expect of themselves.
    gauges: references that were learnt from live rows, in a pane without rows."""

    start: float = 0.0
    end: float = 0.0
    rows: int = 0
    unread: int = 0
    sketches: dict[str, Sketches] = field(default_factory=dict)
    expected: Numbers | None = None
    gauges: dict[str, bytes] = field(default_factory=dict)

    def seen(self, at: float, rows: int) -> None:
        self.start = at if not self.rows else min(self.start, at)
        self.end = max(self.end, at)
        self.rows += rows

    def add(self, name: str, more: Sketches) -> None:
        there = self.sketches.get(name)
        self.sketches[name] = more if there is None or there.gauge != more.gauge else there.merge(more)

    def expect(self, losses: np.ndarray) -> None:
        sums = Numbers(np.array([len(losses)]), total=float(losses.sum()), square=float((losses**2).sum()), low=float(losses.min()), high=float(losses.max()))
        self.expected = sums if self.expected is None else self.expected.merge(sums)

    def merge(self, later: Pane) -> Pane:
        if not later.rows:
            return self
        made = Pane(min(self.start, later.start) if self.rows else later.start, max(self.end, later.end), self.rows + later.rows, self.unread + later.unread, dict(self.sketches), self.expected)
        for name, more in later.sketches.items():
            made.add(name, more)
        if later.expected is not None:
            made.expected = later.expected if made.expected is None else made.expected.merge(later.expected)
        return made

    def to_bytes(self) -> bytes:
        said: dict[str, Any] = {"format": 1, "start": self.start, "end": self.end, "rows": self.rows, "unread": self.unread}
        if self.expected is not None:
            said["expected"] = [self.expected.n, self.expected.total, self.expected.square, self.expected.low, self.expected.high]
        raw = {f"sketch_{name}": s.to_bytes() for name, s in self.sketches.items()} | {f"gauge_{name}": data for name, data in self.gauges.items()}
        return packed(said, **{name: np.frombuffer(data, dtype=np.uint8) for name, data in raw.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Pane:
        said, arrays = unpacked(data)
        made = cls(said["start"], said["end"], said["rows"], said["unread"])
        made.sketches = {name[7:]: Sketches.from_bytes(a.tobytes()) for name, a in arrays.items() if name.startswith("sketch_")}
        made.gauges = {name[6:]: a.tobytes() for name, a in arrays.items() if name.startswith("gauge_")}
        if "expected" in said:
            n, total, square, low, high = said["expected"]
            made.expected = Numbers(np.array([n]), total=total, square=square, low=low, high=high)
        return made


class Panes:
    """The newest panes of one version that hold at least `most` rows together, read from the store as they come; at most PANES, older ones merged."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held: list[tuple[int, Pane]] = []
        self.newest = 0
        self._since: float | None = None

    @property
    def rows(self) -> int:
        return sum(pane.rows for _, pane in self.held)

    def read(self, store: Any, model: str, version: int, at: float) -> int:
        """Takes what is new in the store; returns the number of the newest sketch, 0 if there is none."""
        since = at - LOOK_BACK_S if self._since is None else self._since
        for sketch in store.sketches.between(model, version, since, at + 1):
            if sketch.rows == 0 or sketch.id <= self.newest or any(sketch.id == i for i, _ in self.held):
                continue
            try:
                pane = Pane.from_bytes(sketch.data)
            except InputError:
                continue  # of a newer version of assay that shares the store
            self.held.append((sketch.id, pane))
            self._thin()
        if self.held:
            self.newest = max(self.newest, *(i for i, _ in self.held))
            self._since = self.held[-1][1].end - 120  # another worker's pane may have ended a little earlier
        return self.newest

    def _thin(self) -> None:
        while len(self.held) > 1 and self.rows - self.held[0][1].rows >= self.most:
            self.held.pop(0)
        if len(self.held) > PANES:
            (_, first), (i, second) = self.held[:2]
            self.held[:2] = [(i, first.merge(second))]

    def last(self, rows: int) -> Pane | None:
        """The newest panes with `rows` rows together, or all there are; None if there are fewer than 100 rows in all."""
        made = Pane()
        for _, pane in reversed(self.held):
            made = pane.merge(made)
            if made.rows >= rows:
                break
        return made if made.rows >= 100 else None
