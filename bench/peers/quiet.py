"""One process at a time under the clock: it gets the cores before everybody else, and what the others got meanwhile is written down."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from pathlib import Path

GROUP = Path("/sys/fs/cgroup/cpu/assay-bench")
PAUSE_S = 20.0  # a gap between two looks at the clock, 0.2 s apart when nothing is wrong
SHARES = 65536  # against 1,024 of each other session: about 90 % of a machine on which eight others compute


def first() -> None:
    """Called in the child. Without root nothing happens. Linux weighs sessions (autogroups) before it looks at nice values, and what a
    child starts in a session of its own leaves its autogroup but not its control group: hence all three. ASSAY_BENCH_POLITE=1: not."""
    if os.environ.get("ASSAY_BENCH_POLITE"):
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-15", encoding="ascii")
    with contextlib.suppress(OSError):
        GROUP.mkdir(exist_ok=True)
        (GROUP / "cpu.shares").write_text(str(SHARES), encoding="ascii")
        (GROUP / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def busy_s() -> float:
    """CPU seconds that all processes of the machine have used since it started."""
    with open("/proc/stat", encoding="ascii") as lines:
        user, nice, system, _idle, _wait, irq, soft, *_ = (int(v) for v in lines.readline().split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def timed(command: list[str], log: Path, limit_s: float, folder: Path) -> dict:
    """Run to the end. -> code, wall_s, cpu_s (its own), others_cpu_s (everybody else's meanwhile), load_before, load_after.

    Somebody may stop this bench (kill -STOP) and continue it later: the run that was under the clock is then ended, code -9, because
    its budget went by while it stood still.
    """
    before, busy, load, start = resource.getrusage(resource.RUSAGE_CHILDREN), busy_s(), os.getloadavg()[0], time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=folder, preexec_fn=first, start_new_session=True)
        paused, seen = 0.0, start
        while (code := process.poll()) is None:
            time.sleep(0.2)
            now = time.perf_counter()
            paused, seen = max(paused, now - seen), now
            if now - start > limit_s or paused > PAUSE_S:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                process.wait()
                code = -9
                break
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"code": code, "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "others_cpu_s": round(max(busy_s() - busy - cpu, 0.0), 2),
            "load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)}
