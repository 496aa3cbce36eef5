"""What a job shop is: machines, jobs, their operations; how it is read from a TOML table or a file of the JSPLIB format."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import InputError, ReadError
from assay.words import Text, say

MOST = 5000  # operations


@dataclass(frozen=True)
class Operation:
    """on: (machine, processing time) for each machine that can do it; the times of a forecast are those on the first one."""

    on: tuple[tuple[int, float], ...]
    family: str = ""


@dataclass(frozen=True)
class Job:
    """release, due: times; due is inf where nobody waits. weight: cost of one unit of time late."""

    name: str
    operations: tuple[Operation, ...]
    release: float = 0.0
    due: float = math.inf
    weight: float = 1.0


@dataclass(frozen=True)
class Shop:
    """closed: for each machine the spans in which it does nothing, in order. changeover: {(machine, family before, family after): time}; machine -1 is any
    machine. hard: due dates have to be kept. level: of the processing times in a forecast."""

    machines: tuple[str, ...]
    jobs: tuple[Job, ...]
    closed: tuple[tuple[tuple[float, float], ...], ...]
    changeover: Mapping[tuple[int, str, str], float]
    objective: str = "makespan"
    hard: bool = False
    level: float = 0.5
    best_known: float | None = None

    def change(self, machine: int, before: str, after: str) -> float:
        return self.changeover.get((machine, before, after), self.changeover.get((-1, before, after), 0.0))

    def fits(self, machine: int, start: float, length: float) -> float:
        """The earliest time from `start` at which the machine is open for so long."""
        for low, high in self.closed[machine]:
            if start < high and start + length > low + 1e-9:
                start = high
        return start


_TOP = {"machines", "jobs", "maintenance", "changeovers", "objective", "hard_due", "level"}
_JOB = {"name", "operations", "release", "due", "weight"}
_OPERATION = {"machine", "machines", "time", "times", "family"}


def from_table(table: Mapping[str, Any], place: Path) -> Shop:
    """A shop from a TOML table (docs/decide-jobshop.md shows one). Raises InputError."""
    _known(table, _TOP, say("A job shop problem"))
    jobs_ = table.get("jobs")
    if isinstance(jobs_, str):
        jobs_ = _csv_jobs(place / jobs_)
    if not isinstance(jobs_, list) or not jobs_:
        raise InputError("The job shop has no jobs. Add [[jobs]] with their operations, or name a CSV file.")
    names = [str(m) for m in table.get("machines", [])]
    if len(set(names)) < len(names):
        raise InputError("Two machines have the same name. Give each its own name.")
    free = not names  # then every machine that an operation names exists

    def machine(name: Any, where: str) -> int:
        if str(name) not in names:
            if not free:
                raise InputError("{where} names the machine '{name}', which does not exist. There are: {names}.", where=where, name=str(name), names=names[:12])
            names.append(str(name))
        return names.index(str(name))

    jobs = []
    for i, row in enumerate(jobs_):
        _known(row, _JOB, say("A job"))
        name = str(row.get("name", f"job {i + 1}"))
        operations = tuple(_operation(o, name, machine) for o in row.get("operations", []))
        if not operations:
            raise InputError("The job '{name}' has no operations. Add them, or leave the job out.", name=name)
        jobs.append(Job(name, operations, _time(row.get("release", 0), name, "release"), _time(row["due"], name, "due") if "due" in row else math.inf,
                        _time(row.get("weight", 1), name, "weight")))
    if len({j.name for j in jobs}) < len(jobs):
        raise InputError("Two jobs have the same name. Give each its own name.")
    if sum(len(j.operations) for j in jobs) > MOST:
        raise InputError("There are {n} operations; up to {most} are planned at once. Plan a shorter time first.", n=sum(len(j.operations) for j in jobs), most=MOST)
    closed: list[list[tuple[float, float]]] = [[] for _ in names]
    for row in table.get("maintenance", []):
        _known(row, {"machine", "start", "end"}, say("Maintenance"))
        at = row.get("machine", "")
        start, end = _time(row.get("start"), str(at), "start"), _time(row.get("end"), str(at), "end")
        if str(at) not in names:
            raise InputError("Maintenance names the machine '{name}', which does not exist. There are: {names}.", name=str(at), names=names[:12])
        if end <= start:
            raise InputError("Maintenance of '{name}' ends at {end:g}, but starts at {start:g}.", name=str(at), start=start, end=end)
        closed[names.index(str(at))].append((start, end))
    change = {}
    for row in table.get("changeovers", []):
        _known(row, {"machine", "from", "to", "time"}, say("A changeover"))
        where = str(row.get("machine", ""))
        if where and where not in names:
            raise InputError("A changeover names the machine '{name}', which does not exist. There are: {names}.", name=where, names=names[:12])
        change[names.index(where) if where else -1, str(row.get("from", "")), str(row.get("to", ""))] = _time(row.get("time"), say("a changeover"), "time")
    objective = str(table.get("objective", "makespan"))
    if objective not in ("makespan", "tardiness"):
        raise InputError("The objective is '{objective}'; it can be makespan or tardiness.", objective=objective)
    hard = bool(table.get("hard_due", False))
    if (hard or objective == "tardiness") and all(math.isinf(j.due) for j in jobs):
        raise InputError("No job has a due date, but the problem asks to keep them. Give jobs a `due`, or ask for makespan.")
    level = _time(table.get("level", 0.5), say("the problem"), "level")
    if not 0 < level < 1:
        raise InputError("The service level is {level}; it has to lie between 0 and 1, such as 0.8.", level=level)
    return Shop(tuple(names), tuple(jobs), tuple(_merged(c) for c in closed), change, objective, hard, level)


def _merged(spans: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    out: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if out and low <= out[-1][1]:
            out[-1] = (out[-1][0], max(high, out[-1][1]))
        else:
            out.append((low, high))
    return tuple(out)


def _operation(row: Mapping[str, Any], job: str, machine: Any) -> Operation:
    _known(row, _OPERATION, say("An operation"))
    several = row.get("machines", [row["machine"]] if "machine" in row else [])
    times = row.get("times", [row.get("time")] * len(several))
    if not several or not isinstance(several, list) or not isinstance(times, list) or len(times) != len(several):
        raise InputError("An operation of '{name}' needs a machine and a time, or machines and as many times.", name=job)
    on = tuple((machine(m, job), _time(t, job, "time")) for m, t in zip(several, times, strict=True))
    if len({m for m, _ in on}) < len(on):
        raise InputError("An operation of '{name}' names a machine twice.", name=job)
    return Operation(on, str(row.get("family", "")))


def _time(value: Any, name: str | Text, column: str) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found) or found < 0:
        raise InputError("'{name}' has {column} = {value}; expected a number of at least 0.", name=name, column=column, value=repr(value))
    return found


def _known(row: Any, allowed: set[str], what: Text) -> None:
    if not isinstance(row, Mapping):
        raise InputError("{what} has to be a table with the fields {known}.", what=what, known=sorted(allowed))
    if unknown := [k for k in row if k not in allowed]:
        raise InputError("{what} has no field '{key}'. It has: {known}.", what=what, key=unknown[0], known=sorted(allowed))


def _csv_jobs(path: Path) -> list[dict[str, Any]]:
    """One line an operation, in the order of the job: job, machine, time, and where known family, release, due, weight. 'saw|mill' with '4|5': one of them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = [{k.strip(): v.strip() for k, v in row.items() if k and v and v.strip()} for row in csv.DictReader(lines)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError("'{path}', named under {key}, could not be read: {reason}. Give a CSV file in UTF-8 with a header.", path=str(path), key="jobs",
                        reason=str(error)) from None
    jobs: dict[str, dict[str, Any]] = {}
    for row in rows:
        if missing := [c for c in ("job", "machine", "time") if c not in row]:
            raise InputError("A line of '{path}' has no {column}. Each line is an operation with job, machine and time.", path=str(path), column=missing[0])
        job = jobs.setdefault(row["job"], {"name": row["job"], "operations": []})
        job |= {k: row[k] for k in ("release", "due", "weight") if k in row}
        machines, times = row["machine"].split("|"), row["time"].split("|")
        job["operations"].append({"machines": machines, "times": times * len(machines) if len(times) == 1 else times, "family": row.get("family", "")})
    return list(jobs.values())


def read_jsplib(path: Path) -> Shop:
    """Lines that begin with '#', then 'jobs machines', then one line a job of (machine, time) pairs; machines count from 0. Raises ReadError.

    The best known makespan is taken from the instances.csv beside it (columns instance, optimum, upper_bound).
    """
    try:
        lines = [x.split() for x in path.read_text(encoding="utf-8").splitlines() if x.strip() and not x.lstrip().startswith("#")]
        count, machines = map(int, lines[0][:2])
        rows = [[int(x) for x in line] for line in lines[1 : count + 1]]
    except (OSError, ValueError, IndexError) as error:
        raise ReadError("'{path}' could not be read as a job shop: {reason}. Expected comment lines with '#', then 'jobs machines', then (machine time) pairs, a job a line.",
                        path=str(path), reason=str(error)) from None
    bad = len(rows) != count or any(len(r) % 2 or not r or min(r) < 0 or max(r[::2]) >= machines for r in rows)
    if bad:
        raise ReadError("'{path}' promises {jobs} jobs on {machines} machines, but its lines are not so many pairs of a machine from 0 and a time.",
                        path=str(path), jobs=count, machines=machines)
    jobs = tuple(Job(f"job {i + 1}", tuple(Operation(((m, float(t)),)) for m, t in zip(r[::2], r[1::2], strict=True))) for i, r in enumerate(rows))
    return Shop(tuple(f"machine {m}" for m in range(machines)), jobs, ((),) * machines, {}, best_known=_best_known(path))


def _best_known(path: Path) -> float | None:
    table = path.with_name("instances.csv")
    if table.exists():
        with table.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                if row.get("instance") == path.stem:
                    try:
                        return float(row.get("optimum") or row.get("upper_bound") or "")
                    except ValueError:
                        return None
    return None
