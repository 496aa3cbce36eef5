"""assay keys, audit, models, promote, rollback, as they are typed."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from assay.cli import app
from assay.errors import InputError
from assay.store import Store
from assay.store.home import home_folder, open_store


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def typed(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_a_key_is_made_listed_rotated_and_revoked(home: Path) -> None:
    secret = typed("keys", "make", "--name", "店铺", "--scopes", "predict, feedback", "--ttl", "90d", "--rate", "600").stdout.strip()
    with open_store() as store:
        key = store.keys.find(secret, time.time())
    assert key is not None
    assert key.expires is not None
    assert (key.name, key.scopes, key.rate) == ("店铺", ("predict", "feedback"), 600)
    assert key.expires - key.made == pytest.approx(90 * 86_400)
    made = json.loads(typed("keys", "rotate", key.id, "--grace", "1h", "--json").stdout)
    assert made["replaces"] == key.id
    listed = typed("keys").stdout
    assert all(word in listed for word in (key.id, made["id"], "店铺", "predict feedback"))
    assert secret[-43:] not in listed
    assert "opens nothing" in typed("keys", "revoke", made["id"]).stdout
    assert "已吊销" in typed("keys", "list", "--lang", "zh").stdout
    with open_store() as store:
        assert store.keys.find(made["secret"], time.time()) is None
        assert store.keys.find(secret, time.time() + 3500) is not None
        assert store.keys.find(secret, time.time() + 3700) is None


def test_the_log_is_shown_verified_and_held_against_an_anchor(home: Path, tmp_path: Path) -> None:
    typed("keys", "make", "--name", "a")
    anchor = typed("audit", "anchor").stdout.strip()
    (tmp_path / "anchor").write_text(anchor)
    assert typed("audit").stdout.startswith("2 rows of the audit log hold")
    typed("audit", "verify", "--anchor", anchor)
    typed("audit", "verify", "--anchor", str(tmp_path / "anchor"))
    assert [row["action"] for row in json.loads(typed("audit", "show", "--limit", "1", "--json").stdout)] == ["key made"]
    assert "store made" in typed("audit", "show").stdout
    with sqlite3.connect(home / "store.sqlite") as connection:
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    connection.close()
    assert "Row 2 of the audit log was changed." in typed("audit", "verify", code=1).stdout
    assert "第 2 行被改动过" in typed("audit", "verify", "--lang", "zh", code=1).stdout
    assert json.loads(typed("audit", "verify", "--json", code=1).stdout)["first_broken"] == 2


def test_versions_are_listed_promoted_and_taken_back(home: Path) -> None:
    with open_store(create=True) as store:
        for letter in "abc":
            store.versions.add("churn", letter * 64, f"bundles/{letter}", "serve", {})
        store.versions.promote("churn", 1, "cli", "")
        store.versions.challenge("churn", 3, "canary", 0.25)
    assert "canary 25%" in typed("models").stdout
    typed("promote", "churn", "2", "--reason", "wins")
    (one,) = json.loads(typed("models", "churn", "--json").stdout)
    assert (one["stage"]["champion"], one["stage"]["previous"], len(one["versions"])) == (2, 1, 3)
    assert "was before" in typed("models").stdout
    assert "Version 1 of 'churn' answers" in typed("rollback", "churn", "--reason", "complaints").stdout
    assert isinstance(typed("rollback", "churn", code=1).exception, InputError)
    with open_store() as store:
        assert [row.detail["reason"] for row in store.audit.rows(2)] == ["complaints", "wins"]


@pytest.mark.parametrize("words", [("models",), ("audit",), ("keys", "list"), ("promote", "churn", "1"), ("rollback", "churn")])
def test_without_a_store_the_next_step_is_named_and_none_is_made(home: Path, words: tuple[str, ...]) -> None:
    error = typed(*words, code=1).exception
    assert isinstance(error, InputError)
    assert "assay serve makes one" in str(error)
    assert not home.exists()


def test_what_is_no_action_is_a_sentence(home: Path) -> None:
    assert "none of list, make, revoke, rotate" in typed("keys", "burn", code=2).output
    assert "Name the key" in typed("keys", "revoke", code=2).output
    typed("keys", "make")
    assert isinstance(typed("keys", "make", "--scopes", "root", code=1).exception, InputError)
    assert isinstance(typed("audit", "verify", "--anchor", "x", code=1).exception, InputError)
    assert isinstance(typed("models", "nobody", code=1).exception, InputError)


def test_the_home_is_the_option_then_the_environment_then_this_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home_folder("x") == Path("x")
    assert home_folder() == home
    monkeypatch.delenv("ASSAY_HOME")
    assert home_folder() == Path("assay-home")
    with pytest.raises(InputError), Store.open(home / "store.sqlite", create=False):
        pass
