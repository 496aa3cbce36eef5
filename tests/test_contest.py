"""The contest: budgets are contracts, results are on disk at once, a kill loses at most the running trial."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

from assay.case import Case
from assay.contest.arena import Arena
from assay.contest.budget import Clock
from assay.contest.folder import Folder, Trial
from assay.contest.judge import judge
from assay.contest.run import line_up, play
from assay.contest.workers import Workers
from assay.data.split import splits
from assay.tasks import choose

PLUGIN = textwrap.dedent('''
    """Contestants that misbehave, as a package outside assay would bring them: found through entry points."""
    import time
    import numpy as np
    from assay.families.base import Candidate
    from assay.families.naive import Naive

    class Sleeper(Naive):
        def fit(self, train, *, seed, budget):
            time.sleep(60)

    class Glutton(Naive):
        def fit(self, train, *, seed, budget):
            self.held = [np.ones(20_000_000) for _ in range(12)]
            time.sleep(60)

    class Crasher(Naive):
        def fit(self, train, *, seed, budget):
            import os
            os._exit(9)

    class Raiser(Naive):
        def fit(self, train, *, seed, budget):
            raise RuntimeError("no such matrix")

    class Oracle(Naive):
        """Knows nothing of the test rows, but is better than the shares: reads the number column."""
        def fit(self, train, *, seed, budget):
            super().fit(train, seed=seed, budget=budget)
            self.cut = float(train.frame["weight"].median())
            return self
        def predict(self, asked):
            assert asked.schema.target is None and "kind" not in asked.frame.columns
            return super().predict(asked)
        def dump(self, folder):
            super().dump(folder)

    class Liar(Naive):
        def predict(self, asked):
            return np.full((len(asked), self.task.width), np.nan)

    def card(name, build, **more):
        return Candidate(name=name, rung="classical", tasks=("classify", "regress"), build=build, version="0", **more)

    sleeper, glutton, crasher = card("sleeper", Sleeper), card("glutton", Glutton), card("crasher", Crasher)
    raiser, oracle, liar = card("raiser", Raiser), card("oracle", Oracle), card("liar", Liar)
''')


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package outside assay: a module and a dist-info folder with entry points."""
    site = tmp_path / "site"
    info = site / "misbehaving-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "misbehaving.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    names = ("sleeper", "glutton", "crasher", "raiser", "oracle", "liar")
    (info / "entry_points.txt").write_text("[assay.families]\n" + "".join(f"{n} = misbehaving:{n}\n" for n in names))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    yield names
    sys.modules.pop("misbehaving", None)


def contest(tmp_path, *, only, time_s=30.0, memory_mb=4096.0, folds=1):
    data = __import__("assay.tasks.classify", fromlist=["Classify"]).Classify.example()
    case = Case(target="kind", time_s=time_s, memory_mb=memory_mb, candidates=tuple(only))
    task = choose(data)[0].of(data)
    parts = splits(data, folds=folds, share=0.2, seed=0, kind="random", strata=task.strata(data))
    folder = Folder(tmp_path / "run")
    folder.begin(case, task, data, parts, {"created": "now", "split": {"text": "", "values": {}}, "notes": []})
    return folder, case, task, data, parts


def test_a_family_outside_the_package_is_found_played_and_judged(tmp_path, plugin):
    folder, case, task, data, parts = contest(tmp_path, only=["oracle"])
    with Workers([]) as workers:
        play(Arena(folder, case, task, workers, Clock(30)), line_up(case, task, data.schema), 1)
    done = {t.candidate: t for t in folder.trials()}
    assert done["oracle"].status == "done", done["oracle"].reason
    assert "oracle" in {row["candidate"] for row in judge(folder, case, task, data, parts).scoreboard}


@pytest.mark.parametrize(("name", "words"), [
    ("sleeper", "the end of its time"), ("glutton", "above the limit of 1200 MB"), ("crasher", "ended unexpectedly"),
    ("raiser", "RuntimeError: no such matrix"), ("liar", "not finite"),
])
def test_a_contestant_that_misbehaves_loses_only_itself(tmp_path, plugin, name, words):
    folder, case, task, data, parts = contest(tmp_path, only=[name], time_s=15.0, memory_mb=1200.0)
    started = time.monotonic()
    with Workers([]) as workers:
        play(Arena(folder, case, task, workers, Clock(15.0)), line_up(case, task, data.schema), 1)
    assert time.monotonic() - started < 15.0
    done = {t.candidate: t for t in folder.trials()}
    assert done[name].status == "failed"
    assert words in str(done[name].reason)
    assert done["naive"].status == "done"
    verdict = judge(folder, case, task, data, parts)
    assert verdict.outcome == "unknown"
    assert "Only the naive answer finished" in str(verdict)


def test_a_killed_owner_leaves_no_process_behind(tmp_path, plugin):
    folder, *_ = contest(tmp_path, only=["sleeper"])
    code = f"""
from pathlib import Path
from assay.contest.folder import Folder
from assay.contest.arena import Arena
from assay.contest.run import line_up, play
from assay.contest.workers import Workers
from assay.contest.budget import Clock
folder = Folder(Path({str(folder.path)!r}))
case, task, data, parts, _ = folder.open()
with Workers([]) as workers:
    play(Arena(folder, case, task, workers, Clock(60), lambda e: print(e.kind, e.candidate, flush=True)), line_up(case, task, data.schema), 1)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in owner.stdout:
        if line.startswith("start sleeper"):
            break
    time.sleep(1.0)
    children = psutil.Process(owner.pid).children(recursive=True)
    assert len(children) >= 2, "the zygote and the sleeping trial"
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert [t.candidate for t in folder.trials() if t.status == "done"] == ["naive"]


def test_ctrl_c_keeps_what_has_finished(tmp_path, plugin):
    folder, case, task, data, parts = contest(tmp_path, only=["sleeper"])

    def interrupt(event):
        if event.kind == "note" and event.candidate == "sleeper":
            raise KeyboardInterrupt

    with Workers([]) as workers:
        assert play(Arena(folder, case, task, workers, Clock(30), interrupt), line_up(case, task, data.schema), 1) is False
        assert [t.candidate for t in folder.trials() if t.status == "done"] == ["naive"]
    assert judge(folder, case, task, data, parts).winner == "naive"


def test_finished_trials_are_not_played_again(tmp_path):
    folder, case, task, data, _parts = contest(tmp_path, only=["linear"], folds=2)
    entries = line_up(case, task, data.schema)
    with Workers([]) as workers:
        play(Arena(folder, case, task, workers, Clock(60)), entries, 2)
        before = folder.trials_file.read_bytes()
        started = []
        play(Arena(folder, case, task, workers, Clock(60), lambda e: started.append(e.candidate) if e.kind == "start" else None), entries, 2)
    assert not started
    assert folder.trials_file.read_bytes() == before


def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path):
    folder, *_ = contest(tmp_path, only=["linear"])
    folder.append(Trial("naive", "naive", 0, "failed", 0))
    with folder.trials_file.open("ab") as sink:
        sink.write(b'{"candidate": "linear", "rung"')
    assert [t.candidate for t in folder.trials()] == ["naive"]
    folder.append(Trial("boosting", "classical", 0, "failed", 0))
    assert [t.candidate for t in folder.trials()] == ["naive", "boosting"]
    assert all(json.loads(line) for line in folder.trials_file.read_text().splitlines())


def test_what_does_not_fit_into_the_time_is_refused_with_the_reason(tmp_path):
    folder, case, task, data, _ = contest(tmp_path, only=["linear"])
    with Workers([]) as workers:
        play(Arena(folder, case, task, workers, Clock(1.3)), line_up(case, task, data.schema), 1)
    assert {t.status for t in folder.trials()} == {"refused"}
    assert all(any(why in str(t.reason) for why in ("at least", "left out", "it answers")) for t in folder.trials())


def test_test_rows_reach_no_fit(tmp_path):
    """Change the answers of the test rows: every candidate's predictions stay the same, bit for bit."""
    folder, case, task, data, parts = contest(tmp_path, only=["linear", "boosting"])
    other = Folder(tmp_path / "changed")
    labels = data.y.to_list()
    for i in parts[0].test:
        labels[i] = "praise"
    from assay.data.dataset import Dataset

    changed = Dataset(data.frame.with_columns(pl.Series("kind", labels)), data.schema)
    other.begin(case, task, changed, parts, {"created": "now", "split": {"text": "", "values": {}}, "notes": []})
    with Workers([]) as workers:
        for f, d in ((folder, data), (other, changed)):
            play(Arena(f, case, task, workers, Clock(600)), line_up(case, task, d.schema), 1)
    for name in ("naive", "linear", "boosting"):
        a, b = (np.load(f.prediction_file(f"{name}.0")) for f in (folder, other))
        assert np.array_equal(a, b), name


def test_the_zygote_does_not_run_the_users_script_again(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text("import assay, polars as pl\nfrom assay.tasks.classify import Classify\nprint('once', flush=True)\n"
                      f"run = assay.run(Classify.example().frame, target='kind', time='12s', candidates=['linear'], out={str(tmp_path / 'out')!r})\n"
                      "print(run.verdict.outcome)\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, cwd=Path(tmp_path), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "once"
    assert done.stdout.count("once") == 1
