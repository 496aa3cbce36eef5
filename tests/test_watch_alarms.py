"""Alarms go out once, signed, to servers that really run here, and a server that hangs or lies stops nothing."""

import hashlib
import hmac
import json
import logging
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from assay.errors import InputError
from assay.store.store import Store
from assay.watch.alarms import Alarms, Log, Mail, Note, Refused, Webhook
from assay.watch.finding import Finding
from assay.words import say

NOTE = Note("m", "drift:x", "critical", say("'{column}' is missing in {now:.1%} of the rows, before in {was:.1%}.", column="x", now=0.5, was=0.0), {"effect": 0.5}, 1.0)
DRIFT = Finding("drift:x", "warning", NOTE.text, {"effect": 0.5})


@contextmanager
def http(answers):
    """A server that answers with these (status, headers) in turn, the last for ever; yields (url, what came)."""
    came = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers = answers[min(len(came), len(answers) - 1)]
            came.append((self.path, dict(self.headers), body))
            if status == 0:
                time.sleep(1.0)
                return
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook?k=1", came
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def smtp():
    """A mail server that speaks enough of RFC 5321 for smtplib; yields (port, letters)."""
    letters, listening = [], socket.create_server(("127.0.0.1", 0))

    def talk():
        while True:
            try:
                talker, _ = listening.accept()
            except OSError:
                return
            with talker, talker.makefile("rwb") as line:
                def say_(text, line=line):
                    line.write(text + b"\r\n")
                    line.flush()

                say_(b"220 here")
                letter = {"to": []}
                while (said := line.readline()):
                    word = said[:4].upper()
                    if word == b"DATA":
                        say_(b"354 go")
                        body = []
                        while (part := line.readline()) != b".\r\n":
                            body.append(part)
                        letter["body"] = b"".join(body)
                        letters.append(letter)
                    elif word == b"RCPT":
                        letter["to"].append(said.split(b":", 1)[1].strip())
                    elif word == b"QUIT":
                        say_(b"221 bye")
                        break
                    say_(b"250 ok")

    threading.Thread(target=talk, daemon=True).start()
    try:
        yield listening.getsockname()[1], letters
    finally:
        listening.close()


def test_a_webhook_gets_the_sentence_in_its_language_with_a_signature_that_holds():
    with http([(204, {})]) as (url, came):
        Webhook(url, secret="hush", lang="zh").send(NOTE)
    path, headers, body = came[0]
    assert path == "/hook?k=1"
    said = json.loads(body)
    assert (said["code"], said["level"], said["over"]) == ("drift:x", "critical", False)
    assert "缺失" in said["text"]
    at, mark = (part.split("=", 1)[1] for part in headers["X-Assay-Signature"].split(","))
    assert abs(int(at) - time.time()) < 60
    assert hmac.compare_digest(mark, hmac.new(b"hush", at.encode() + b"." + body, hashlib.sha256).hexdigest())


def test_a_webhook_is_tried_again_after_a_failure_but_not_after_a_refusal():
    with http([(503, {}), (500, {}), (200, {})]) as (url, came):
        Webhook(url, pause_s=0.01).send(NOTE)
        assert len(came) == 3
    with http([(403, {})]) as (url, came), pytest.raises(Refused):
        Webhook(url, pause_s=0.01).send(NOTE)
    assert len(came) == 1
    with http([(500, {})]) as (url, came), pytest.raises(OSError, match="500"):
        Webhook(url, tries=3, pause_s=0.01).send(NOTE)
    assert len(came) == 3


def test_a_webhook_that_hangs_is_given_up_in_time():
    with http([(0, {})]) as (url, _):
        began = time.monotonic()
        with pytest.raises(OSError, match=r"imed out|Timeout"):
            Webhook(url, tries=1, timeout_s=0.2).send(NOTE)
        assert time.monotonic() - began < 0.9


def test_a_signed_body_follows_no_redirect_to_another_host():
    with http([(200, {})]) as (other, stolen), http([(307, {"Location": other})]) as (url, _), pytest.raises(Refused, match="redirect"):
        Webhook(url, secret="hush", pause_s=0.01).send(NOTE)
    assert stolen == []
    with http([(308, {"Location": "/new"}), (200, {})]) as (url, came):
        Webhook(url, secret="hush").send(NOTE)
    assert [path for path, _, _ in came] == ["/hook?k=1", "/new"]


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "host/path", "http://"])
def test_an_address_that_is_none_is_refused_in_a_sentence(url):
    with pytest.raises(InputError, match="no address"):
        Webhook(url)


def test_a_secret_is_in_no_repr():
    assert "hush" not in repr(Webhook("https://h/x", secret="hush")) + repr(Mail("h", "a@b.c", ("d@e.f",), user="u", password="hush"))


def test_a_mail_reaches_a_real_server_and_a_models_name_adds_no_header():
    with smtp() as (port, letters):
        Mail("127.0.0.1", "assay@plant.example", ("shift@plant.example", "it@plant.example"), port, tls="none").send(Note(**{**vars(NOTE), "model": "m\r\nBcc: thief@x.example"}))
    assert letters[0]["to"] == [b"<shift@plant.example>", b"<it@plant.example>"]
    head = letters[0]["body"].split(b"\r\n\r\n")[0]
    assert b"\nBcc:" not in head
    assert b"drift:x" in head
    assert b"50.0" in letters[0]["body"]


class Kept:
    def __init__(self):
        self.notes = []

    def send(self, note):
        self.notes.append(note)


class Broken:
    def send(self, note):
        raise OSError("no route to host")


def test_an_alarm_is_told_once_closed_after_three_quiet_checks_and_one_broken_sink_hinders_no_other(tmp_path):
    kept = Kept()
    with Store.open(tmp_path / "s.sqlite") as store:
        alarms = Alarms(store, "m", (Broken(), kept))
        for at in range(3):
            alarms.settle([DRIFT], at)
        for at in range(2):
            assert alarms.settle([], at, judged=["drift"]) == []
        alarms.settle([], 9, judged=["missing"])  # drift could not be judged: that is not quiet
        assert len(store.alarms.open("m")) == 1
        alarms.settle([], 10, judged=["drift"])
        assert store.alarms.open("m") == []
        alarms.close()
    assert [(n.code, n.over) for n in kept.notes] == [("drift:x", False), ("drift:x", True)]
    assert "no route to host" in alarms.failed[0]


def test_what_comes_and_goes_at_every_check_rings_once(tmp_path):
    kept = Kept()
    with Store.open(tmp_path / "s.sqlite") as store:
        alarms = Alarms(store, "m", (kept,))
        for i in range(20):
            alarms.settle([DRIFT] if i % 2 == 0 else [], i)
        alarms.close()
    assert len(kept.notes) == 1


def test_a_flood_of_alarms_is_held_back_and_counted(tmp_path):
    kept, now = Kept(), [0.0]
    with Store.open(tmp_path / "s.sqlite") as store:
        alarms = Alarms(store, "m", (kept,), per_hour=5, clock=lambda: now[0])
        alarms.settle([Finding(f"drift:{i}", "warning", NOTE.text, {}) for i in range(40)], 0)
        assert len(store.alarms.open("m")) == 40
        now[0] = 4000.0
        alarms.settle([Finding("drift:late", "warning", NOTE.text, {})], 1)
        alarms.close()
    assert len(kept.notes) == 6
    assert kept.notes[-1].facts["held_back"] == 35


def test_the_log_gets_one_line_of_json(caplog):
    with caplog.at_level(logging.WARNING, logger="assay.alarms"):
        Log().send(NOTE)
    assert json.loads(caplog.records[0].message)["code"] == "drift:x"
