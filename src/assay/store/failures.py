"""What databases say when they fail, as one sentence of ours.

BudgetError (HTTP 503): no room, a lock, a disk that refuses. EndpointError (502): a server that is gone. RowError: the row is to blame.
ReadError, InputError: somebody has to mend the store or its address first.
"""

from __future__ import annotations

import re

from assay.errors import AssayError, BudgetError, EndpointError, InputError, ReadError
from assay.store.address import Address, secrets_of
from assay.store.packing import RowError
from assay.words import say


def explained(error: Exception, address: Address) -> AssayError:
    """The sentence for what SQLAlchemy raised (or the driver beneath it)."""
    cause = getattr(error, "orig", None) or error
    text = _reason(cause, address)
    if address.dialect == "sqlite":
        return _sqlite(getattr(cause, "sqlite_errorname", "") or "", text, address.shown)
    state, code = getattr(cause, "sqlstate", None) or "", _code(cause)
    if (state[:2] == "53" and state != "53300") or code in (1021, 1114) or "No space left" in text:
        return BudgetError("No room is left for the store '{store}': {reason}. What waits is kept and written when there is room.", store=address.shown, reason=text)
    if state[:2] in ("28", "3D") or code in (1044, 1045, 1049, 1130, 1698) or re.search(r"password authentication failed|does not exist$|no pg_hba", text):
        return InputError("The database does not let us in at {store}: {reason}.", store=address.shown, reason=text)
    if state[:2] in ("08", "57") or state == "53300" or code in (1040, 1053, 1927, 2003, 2006, 2013, 2055) or not (state or code):
        return EndpointError("No database answers at {store}: {reason}. Is it running, and is the address right?", store=address.shown, reason=text)
    if state in ("40001", "40P01", "55P03") or code in (1205, 1213):
        return BudgetError("The store '{store}' is busy: {reason}.", store=address.shown, reason=text)
    if state[:2] == "23" or code in (1062, 1048):
        return RowError(say("The store '{store}' holds such a row already: {reason}.", store=address.shown, reason=text))
    if state[:2] in ("22", "54") or code in (1153, 1264, 1366, 1406):
        return RowError(say("The store '{store}' cannot hold a row: {reason}.", store=address.shown, reason=text))
    return AssayError("The store '{store}' refuses: {reason}.", store=address.shown, reason=text)


def _sqlite(name: str, text: str, shown: str) -> AssayError:
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR") or "disk is full" in text:
        return BudgetError("No room is left for the store '{store}', or its disk refuses to write: {reason}. What waits is kept and written when there is room.", store=shown, reason=text)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "locked" in text:
        return BudgetError("The store '{store}' is busy: {reason}.", store=shown, reason=text)
    if name.startswith("SQLITE_READONLY") or "readonly" in text:
        return BudgetError("The store '{store}' may not be written: {reason}. Give this user the right to write to the file and its folder.", store=shown, reason=text)
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")) or "malformed" in text or "not a database" in text:
        return ReadError("'{store}' is damaged, or no store: {reason}. Put a backup in its place.", store=shown, reason=text)
    if name.startswith("SQLITE_CANTOPEN"):
        return BudgetError("The store '{store}' cannot be opened: {reason}. Does its folder exist, and may this user write there?", store=shown, reason=text)
    if name.startswith("SQLITE_CONSTRAINT"):
        return RowError(say("The store '{store}' holds such a row already: {reason}.", store=shown, reason=text))
    if name in ("SQLITE_TOOBIG", "SQLITE_MISMATCH"):
        return RowError(say("The store '{store}' cannot hold a row: {reason}.", store=shown, reason=text))
    return AssayError("The store '{store}' refuses: {reason}.", store=shown, reason=text)


def _code(cause: BaseException) -> int:
    first = cause.args[0] if cause.args else 0
    return first if isinstance(first, int) else 0


def _reason(cause: BaseException, address: Address) -> str:
    """The driver's words in one line, without the password."""
    text = str(cause.args[-1] if cause.args and isinstance(cause.args[0], int) else cause)
    parts = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("LINE", "^", "Multiple connection", "CONTEXT"))]
    text = parts[-1] if len(parts) > 1 and "host:" in parts[-1] else (parts[0] if parts else type(cause).__name__)
    text = re.sub(r"^.*(?:FATAL|ERROR): +|^\[[^\]]*\] *", "", text)
    for secret in secrets_of(address.url):
        text = text.replace(secret, "***")
    return text.strip().rstrip(".")[:300]
