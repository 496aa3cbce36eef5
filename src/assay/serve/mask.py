"""Personal data in what is kept, taken out by pattern and check digit: e-mail, phone, bank card, Chinese identity card, IBAN.

Names and addresses have no pattern and stay; leave the rows out (`--no-rows`) where they must not be kept at all.
"""

from __future__ import annotations

import re
from typing import Any

_MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}")
_CHINESE_ID = re.compile(r"(?<!\d)\d{17}[\dXx](?![\dA-Za-z])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![\d])\d(?:[ -]?\d){12,18}(?![\d])")
_PHONE = re.compile(r"(?<![\d+])(?:(?:\+|00)\d{1,3}[ -]?(?:\d[ -]?){6,12}\d|1[3-9]\d(?:[ -]?\d{4}){2}|0\d{2,3}-\d{7,8})(?![\d])")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def masked(value: Any) -> Any:
    """The same value with personal data in its texts replaced by [email], [phone], [card], [id] or [iban]; numbers and other kinds stay."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {name: masked(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(v) for v in value]
    return value


def _text(text: str) -> str:
    if "@" in text:
        text = _MAIL.sub("[email]", text)
    if sum(c.isdigit() for c in text) < 7:
        return text
    text = _IBAN.sub(lambda m: "[iban]" if _iban(m[0]) else m[0], text)
    text = _CHINESE_ID.sub(lambda m: "[id]" if _chinese_id(m[0]) else m[0], text)
    text = _CARD.sub(lambda m: "[card]" if _luhn(m[0]) else m[0], text)
    return _PHONE.sub("[phone]", text)


def _luhn(text: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    digits = [int(c) for c in text if c.isdigit()][::-1]
    return sum(digits[0::2]) % 10 == -sum(sum(divmod(2 * d, 10)) for d in digits[1::2]) % 10


def _chinese_id(text: str) -> bool:
    """GB 11643-1999: the last of 18 characters checks the others."""
    return "10X98765432"[sum(int(c) * w for c, w in zip(text, _WEIGHTS, strict=False)) % 11] == text[-1].upper()


def _iban(text: str) -> bool:
    """ISO 13616-1: 1 modulo 97."""
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1
