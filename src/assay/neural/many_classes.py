"""More classes than a network tells apart: every class gets a code of digits, and the network answers one digit after another.

Error-correcting output codes (Dietterich & Bakiri 1995, doi:10.1613/jair.105), here with as many digits as the network has
classes, as in TabPFN's many-class extension.
"""

from __future__ import annotations

import numpy as np


def codebook(classes: int, base: int, columns: int, seed: int) -> np.ndarray:
    """int64 (classes, m), digits from 0 to base - 1. No two classes share a code; every column uses its digits evenly.

    columns: how many digits are wished for; at least twice as many are made as telling the classes apart takes.
    """
    rng = np.random.default_rng(seed)
    needed = _needed(classes, base)
    book = np.empty((classes, max(columns, 2 * needed)), dtype=np.int64)
    place = rng.permutation(classes)
    for j in range(book.shape[1]):
        if j < needed:
            book[:, j] = place // base**j % base
        else:
            book[rng.permutation(classes), j] = np.arange(classes) % base
        book[:, j] = np.unique(book[:, j], return_inverse=True)[1]  # without gaps: a digit that nobody has cannot be shown
    return book


def answered(book: np.ndarray, digits: list[np.ndarray], base: int) -> np.ndarray:
    """Probabilities (n, classes) from those of each digit, (n, its digits). The passes see the same rows and err alike, so
    they count together as much as the digits that would be needed."""
    log = sum(np.log(np.maximum(p, 1e-9))[:, book[:, j]] for j, p in enumerate(digits))
    log = np.asarray(log) * (_needed(len(book), base) / book.shape[1])
    log -= log.max(axis=1, keepdims=True)
    p = np.exp(log)
    return p / p.sum(axis=1, keepdims=True)


def _needed(classes: int, base: int) -> int:
    """The fewest digits with a code for every class."""
    digits = 1
    while base**digits < classes:
        digits += 1
    return digits
