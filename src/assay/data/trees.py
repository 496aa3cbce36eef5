"""Trees of LightGBM that answer, by its C library alone: its Python package brings scipy, scikit-learn and pandas, 1.3 s and 120 MB.

The same library and the same calls as `lightgbm.Booster.predict` makes, so the same answers to the last bit. Growing trees stays
with the package. C API: https://lightgbm.readthedocs.io/en/stable/C-API.html (Ke et al. 2017).
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import sys
import threading
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.trees_text import checked
from assay.errors import AssayError, BundleError

_FLOAT32, _FLOAT64, _INT32, _INT64 = 0, 1, 2, 3  # C_API_DTYPE_*
_ANSWERS, _SCORES = 0, 1  # C_API_PREDICT_*


class Trees:
    """A model that was grown elsewhere. What it offers, it offers as `lightgbm.Booster` does, so that a family may hold either.

    features: columns that it reads. outputs: numbers a row. rounds: trees of each output. Threads may share it.
    """

    def __init__(self, text: str, *, threads: int = 1, shown: str = "trees") -> None:
        """text: what LightGBM wrote. threads: that answer many rows; 0 for all. Raises BundleError if the text is damaged or hostile."""
        model = checked(text, shown=shown)
        self.features, self.outputs, self.rounds, self.threads = model.features, model.outputs, model.rounds, threads
        self._held = _Held(model.text)
        self._rows = threading.local()

    @classmethod
    def read(cls, file: Path, *, threads: int = 1) -> Trees:
        return cls(file.read_text(encoding="utf-8"), threads=threads, shown=file.name)

    def predict(self, x: Any, *, raw_score: bool = False, num_iteration: int | None = None, num_threads: int | None = None) -> np.ndarray:
        """Float64 (n,), or (n, outputs) if there are several. x: numbers (n, features), or a CSR matrix of scipy.

        raw_score: the sums of the leaves, before they become probabilities. num_iteration: of the first rounds only.
        """
        if x.ndim != 2 or x.shape[1] != self.features:
            raise BundleError("The trees read {wanted} columns, and they were given {found}. Pack the model again.", wanted=self.features, found=x.shape[-1])
        dense = isinstance(x, np.ndarray)
        if dense and len(x) == 1 and num_iteration is None and x.dtype in (np.float32, np.float64):
            return self.row(x[0], raw_score=raw_score)
        out = np.empty(x.shape[0] * self.outputs)
        if len(out):
            rest = (_SCORES if raw_score else _ANSWERS, 0, num_iteration or -1, b"num_threads=%d" % (self.threads if num_threads is None else num_threads),
                    ctypes.byref(ctypes.c_int64()), out.ctypes.data)
            if dense:
                x = np.ascontiguousarray(x, dtype=x.dtype if x.dtype in (np.float32, np.float64) else np.float32)  # as Booster does
                _called("LGBM_BoosterPredictForMat", self._held.handle, x.ctypes.data, _FLOAT32 if x.dtype == np.float32 else _FLOAT64, *x.shape, 1, *rest)
            else:
                starts, places = np.ascontiguousarray(x.indptr), np.ascontiguousarray(x.indices, dtype=np.int32)
                values = np.ascontiguousarray(x.data, dtype=x.dtype if x.dtype in (np.float32, np.float64) else np.float32)
                _called("LGBM_BoosterPredictForCSR", self._held.handle, starts.ctypes.data, _INT32 if starts.dtype == np.int32 else _INT64, places.ctypes.data,
                        values.ctypes.data, _FLOAT32 if values.dtype == np.float32 else _FLOAT64, len(starts), len(values), x.shape[1], *rest)
        return out if self.outputs == 1 else out.reshape(-1, self.outputs)

    def row(self, values: Sequence[float] | np.ndarray, *, raw_score: bool = False) -> np.ndarray:
        """`predict` of one row of `features` numbers, (1,) or (1, outputs). It sets nothing up: 2 us beside the trees' own time, not 30."""
        kind = "scores" if raw_score else "answers"
        own = self._rows.__dict__.get(kind)
        if own is None:
            own = self._rows.__dict__[kind] = _Row(self, _SCORES if raw_score else _ANSWERS)
        if type(values) is list and len(values) == self.features:
            own.fill(own.place, 0, *values)
        else:
            own.given[:] = values
        if own.ask(own.config, own.given_at, own.count_at, own.said_at):
            raise _broken()
        return own.said.copy()

    def model_to_string(self, num_iteration: int | None = None) -> str:
        """The text of LightGBM again, of the first rounds only if asked; without gains and counts, which answering does not need."""
        size = ctypes.c_int64()
        _called("LGBM_BoosterSaveModelToString", self._held.handle, 0, num_iteration or -1, 0, 0, ctypes.byref(size), None)
        text = ctypes.create_string_buffer(size.value)
        _called("LGBM_BoosterSaveModelToString", self._held.handle, 0, num_iteration or -1, 0, size.value, ctypes.byref(size), text)
        return text.value.decode("utf-8")

    def save_model(self, filename: str, num_iteration: int | None = None) -> Trees:
        Path(filename).write_text(self.model_to_string(num_iteration), encoding="utf-8")
        return self


class _Held:
    """The trees as the library holds them, until nobody does any more."""

    def __init__(self, text: bytes) -> None:
        self.handle, rounds = ctypes.c_void_p(), ctypes.c_int()
        _called("LGBM_BoosterLoadModelFromString", text, ctypes.byref(rounds), ctypes.byref(self.handle))
        weakref.finalize(self, _library().LGBM_BoosterFree, self.handle).atexit = False


class _Row:
    """What one thread needs to ask for one row: the library's own record of the question, and places for numbers in and out."""

    def __init__(self, trees: Trees, kind: int) -> None:
        self.trees = trees._held  # the record is let go before the trees that it speaks of
        self.given = np.empty(trees.features)
        self.place = memoryview(self.given)  # type: ignore[arg-type]  # an array is a buffer
        self.fill = struct.Struct(f"{trees.features}d").pack_into  # a third of the time of assigning a list to an array
        self.said = np.empty((1, trees.outputs) if trees.outputs > 1 else 1)
        self.count = ctypes.c_int64()
        self.config = ctypes.c_void_p()
        _called("LGBM_BoosterPredictForMatSingleRowFastInit", trees._held.handle, kind, 0, -1, _FLOAT64, trees.features, b"num_threads=1", ctypes.byref(self.config))
        weakref.finalize(self, _library().LGBM_FastConfigFree, self.config).atexit = False
        self.ask = _quick()
        self.given_at, self.said_at = ctypes.c_void_p(self.given.ctypes.data), ctypes.c_void_p(self.said.ctypes.data)
        self.count_at = ctypes.byref(self.count)


_P, _I, _L, _S = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
_ASKED = [_I, _I, _I, _S, _P, _P]  # what, from which round, how many rounds, settings, where the count goes, where the answers go
_CALLS: dict[str, list[Any]] = {
    "LGBM_BoosterLoadModelFromString": [_S, _P, _P],
    "LGBM_BoosterFree": [_P],
    "LGBM_BoosterPredictForMat": [_P, _P, _I, _I, _I, _I, *_ASKED],
    "LGBM_BoosterPredictForCSR": [_P, _P, _I, _P, _P, _I, _L, _L, _L, *_ASKED],
    "LGBM_BoosterPredictForMatSingleRowFastInit": [_P, _I, _I, _I, _I, _I, _S, _P],
    "LGBM_FastConfigFree": [_P],
    "LGBM_BoosterSaveModelToString": [_P, _I, _I, _I, _L, _P, _P],
}


def _called(name: str, *given: Any) -> None:
    if getattr(_library(), name)(*given):
        raise _broken()


def _broken() -> AssayError:
    reason = _library().LGBM_GetLastError().decode("utf-8", "replace").strip()
    return BundleError("The trees could not be read or asked; LightGBM says: {reason}. Pack the model again.", reason=reason[:300].rstrip("."))


@cache
def _library() -> ctypes.CDLL:
    """LightGBM's C library out of the folder of its installed package, which is not imported. Raises ImportError if it is not there."""
    library = ctypes.CDLL(str(_file()))
    for name, takes in _CALLS.items():
        getattr(library, name).argtypes = takes
    library.LGBM_GetLastError.restype = _S
    return library


@cache
def _quick() -> Any:
    """The call for one row, which keeps Python's lock: others wait for 20 us, and giving it away and getting it back can cost more."""
    ask = ctypes.PyDLL(str(_file())).LGBM_BoosterPredictForMatSingleRowFast
    ask.argtypes = [_P, _P, _P, _P]
    return ask


@cache
def _file() -> Path:
    found = importlib.util.find_spec("lightgbm")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'lightgbm'", name="lightgbm")
    name = {"win32": "lib_lightgbm.dll", "darwin": "lib_lightgbm.dylib"}.get(sys.platform, "lib_lightgbm.so")
    package = Path(found.submodule_search_locations[0])
    places = [package / "lib" / name, package / "bin" / name, package.parent / name]  # where the package itself looks
    for place in places:
        if place.is_file():
            return place
    raise AssayError("The package lightgbm is installed without its library '{name}' in '{folder}'. Install it again: pip install --force-reinstall lightgbm",
                     name=name, folder=str(package / "lib"))
