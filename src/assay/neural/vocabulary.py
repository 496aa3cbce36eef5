"""A vocabulary of text pieces, learnt from the training rows by byte-pair merging (Sennrich et al. 2016, arXiv:1508.07909).

It begins with characters, so no language needs a word list: English ends with words and syllables, Chinese, where few pairs come
back often enough in a small table, with characters and its most frequent words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

PADDING, UNKNOWN, HIDDEN = 0, 1, 2
SPECIAL = ["[PAD]", "[UNK]", "[HIDDEN]"]
FEWEST, MOST, CHARACTERS_EACH = 500, 8000, 100  # a piece for each hundred characters that were read, within these bounds
LEAST_SEEN = 5  # a piece in fewer places teaches nothing
RARE, MOST_ALPHABET = 2, 5000
MOST_LEARNT = 20_000_000  # characters


class Vocabulary:
    """tokenizer: a `tokenizers.Tokenizer`."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.size = int(tokenizer.get_vocab_size())

    @classmethod
    def learn(cls, texts: Sequence[str]) -> Vocabulary:
        """Same texts, same vocabulary, on any machine: ties are broken by the pieces themselves."""
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " ")])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True),
        ])
        kept, total = [], 0
        for text in texts:
            kept.append(tokenizer.normalizer.normalize_str(text))
            total += len(text)
            if total > MOST_LEARNT:
                break
        counts = Counter(c for text in kept for c in text)
        # the trainer's own limit on the alphabet breaks ties at random, so what is rare is taken out beforehand
        alphabet = sorted(sorted((c for c, n in counts.items() if n >= RARE and not c.isspace()), key=lambda c: (-counts[c], c))[:MOST_ALPHABET])
        drop = {ord(c): " " for c in counts.keys() - set(alphabet)}
        size = len(SPECIAL) + len(alphabet) + int(np.clip(total // CHARACTERS_EACH, FEWEST, MOST))
        size = min(size, max(MOST, len(SPECIAL) + len(alphabet)))
        trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=LEAST_SEEN, special_tokens=SPECIAL, initial_alphabet=["▁", *alphabet], show_progress=False)
        tokenizer.train_from_iterator((text.translate(drop) for text in kept), trainer)
        return cls(tokenizer)

    def ids(self, texts: Sequence[str], threads: int = 2) -> list[np.ndarray]:
        """int64 pieces of each text, at least one."""
        if threads > 1 and len(texts) > 1:
            encoded = self.tokenizer.encode_batch_fast(texts)
        else:
            encoded = [self.tokenizer.encode(text) for text in texts]
        return [np.array(one.ids or [UNKNOWN], dtype=np.int64) for one in encoded]

    def json(self) -> str:
        return str(self.tokenizer.to_str())

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_str(text))
