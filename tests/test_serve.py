"""The service, asked over HTTP as clients ask it."""

import io
import json
import re
import shlex
import subprocess
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from serving import Service, bundle, rows, running

from assay.data.dataset import Dataset
from assay.serve.mask import masked
from assay.ship.bundle import load
from assay.store.store import Store
from assay.tasks.base import schema_of

ROW = {"amount": 120.5, "kind": "hail", "note": "clear case 3"}
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return bundle(tmp_path_factory.mktemp("packed") / "claims.assay")


@pytest.fixture(scope="module")
def service(tmp_path_factory, packed):
    with running(tmp_path_factory.mktemp("served") / "home", f"claims={packed}", "--check-every", "1") as found:
        yield found


def store_of(service: Service) -> Store:
    return Store.open(service.home / "store.sqlite", create=False)


def test_it_says_where_it_is_and_a_curl_line_that_works(service):
    line = next(one for one in service.said if "curl" in one)
    done = subprocess.run(shlex.split(line[line.index("curl"):]), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["answer"] in ("yes", "no")
    assert any(f"http://127.0.0.1:{service.port}" in one for one in service.said)


def test_one_row_is_answered_as_the_bundle_answers_it(service, packed):
    said = service.post("/v1/predict", {"row": ROW}).json
    own = load(packed).predict_one(ROW)
    assert {k: said[k] for k in own} == own
    assert said["model"] == "claims"
    assert re.fullmatch(r"[0-9a-f]{24}", said["id"])


def test_many_rows_are_answered_alike_as_json_and_as_arrow(service):
    asked = rows(40, seed=3).frame.drop("paid", "claim")
    listed = service.post("/v1/predict", {"rows": asked.to_dicts()}).json["answers"]
    out = io.BytesIO()
    asked.write_ipc_stream(out)
    answer = service.post("/v1/predict", out.getvalue(), headers={"Content-Type": ARROW})
    frame = pl.read_ipc_stream(io.BytesIO(answer.body))
    assert answer.headers["assay-model"] == "claims"
    assert frame["answer"].to_list() == [a["answer"] for a in listed]
    assert len({a["id"] for a in listed}) == 40


def test_more_rows_than_the_writer_can_queue_are_answered_and_all_written(service):
    out = io.BytesIO()
    rows(25_000, seed=4).frame.drop("paid", "claim").write_ipc_stream(out)
    answer = service.post("/v1/predict", out.getvalue(), headers={"Content-Type": ARROW})
    assert answer.status == 200, answer.body[:300]
    ids = pl.read_ipc_stream(io.BytesIO(answer.body))["id"].to_list()
    until = time.monotonic() + 20
    with store_of(service) as store:
        while store.predictions.get(ids[-1]) is None:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert all(store.predictions.get(ids[i]) is not None for i in range(0, 25_000, 500))


def test_a_form_is_a_row(service):
    body = b"".join(b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (k.encode(), str(v).encode()) for k, v in ROW.items()) + b"--x--\r\n"
    said = service.post("/v1/predict", body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert said.json["answer"] == service.post("/v1/predict", {"row": ROW}).json["answer"]


def test_what_is_explained_adds_up_to_the_answer(service):
    said = service.post("/v1/explain", {"row": ROW}).json
    assert sum(c["adds"] for c in said["columns"]) == pytest.approx(said["told"] - said["usual"], abs=1e-6)  # networks and trees answer in float32
    assert said["told"] == pytest.approx(said["answer"]["probability"])
    assert {c["column"] for c in said["columns"]} == {"amount", "kind", "note"}
    assert said["words"]


def test_feedback_is_in_the_store_when_it_is_acknowledged_and_joins_its_answer(service):
    number = service.post("/v1/predict", {"row": ROW}).json["id"]
    said = service.post("/v1/feedback", {"id": number, "label": "no", "note": "checked"})
    assert (said.status, said.json["kept"]) == (201, 1)
    with store_of(service) as store:
        prediction, label = next((p, f) for p, f in store.predictions.labelled("claims") if p.id == number)
    assert (prediction.row, label.label, label.note, label.source) == (ROW, "no", "checked", "api")


def test_a_labelled_row_that_was_never_asked_is_kept_too(service):
    assert service.post("/v1/feedback", {"row": ROW, "label": "yes"}).status == 201


@pytest.mark.parametrize(("body", "status", "word"), [
    ({"id": "0" * 24, "label": "yes"}, 404, "0000"),
    ({"label": "yes"}, 422, "'id'"),
    ({"id": 7, "label": "yes"}, 422, "string"),
    ({"row": {"amount": 1}, "label": "yes"}, 422, "note"),
    ({"row": ROW, "label": "perhaps"}, 422, "perhaps"),
    ({"row": ROW}, 422, "label"),
    ({"row": ROW, "label": "yes", "lable": 1}, 422, "lable"),
    ({"items": []}, 422, "items"),
    ({"items": [{"row": ROW, "label": "yes"}, {"row": ROW, "label": True}]}, 422, "Item 2"),
])
def test_feedback_that_cannot_be_used_is_refused_in_a_sentence(service, body, status, word):
    said = service.post("/v1/feedback", body)
    assert (said.status, word in said.sentence) == (status, True), said.body


@pytest.mark.parametrize(("body", "status", "word"), [
    (b"{", 400, "JSON"), (b'{"row": {"amount": NaN}}', 400, "NaN"), (b"[" * 100_000, 400, "deep"), (b"\xff\xfe", 400, "UTF-8"), (b"", 400, "JSON"), (b"[]", 422, "object"),
    ({}, 422, "row"), ({"row": ROW, "rows": [ROW]}, 422, "rows"), ({"rows": []}, 422, "no rows"), ({"rows": [ROW, 5]}, 422, "Row 2"), ({"row": ROW, "modle": "claims"}, 422, "modle"),
    ({"row": ROW, "model": "other"}, 404, "other"), ({"row": ROW, "model": 5}, 422, "name of a model"), ({"row": ROW | {"amuont": 3}}, 422, "amuont"),
    ({"row": {k: v for k, v in ROW.items() if k != "kind"}}, 422, "kind"), ({"row": ROW | {"amount": "plenty"}}, 422, "plenty"), ({"row": ROW | {"amount": [1]}}, 422, "amount"),
    ({"row": ROW | {"note": {"a": 1}}}, 422, "note"), ({"rows": [ROW] * 10_001}, 413, "10,001"),
])
def test_rows_that_cannot_be_used_are_refused_in_a_sentence(service, body, status, word):
    said = service.post("/v1/predict", body)
    assert (said.status, word in said.sentence) == (status, True), said.body


def test_odd_rows_are_answered(service):
    for more in ({"amount": None}, {"kind": "meteor"}, {"note": None}, {"amount": "12.5"}, {"note": "'; drop table predictions; --"}, {"claim": "C1"}, {"paid": "yes"}):
        assert service.post("/v1/predict", {"row": ROW | more}).status == 200, more


def test_arrow_that_is_none_and_arrow_that_is_nested_are_refused(service):
    out = io.BytesIO()
    pl.DataFrame({"amount": [[1.0]], "kind": ["hail"], "note": ["x"]}).write_ipc_stream(out)
    for raw in (b"ARROW1", out.getvalue(), out.getvalue()[:60]):
        assert service.post("/v1/predict", raw, headers={"Content-Type": ARROW}).status in (400, 422)


def test_paths_methods_hosts_and_types_are_refused_by_name(service):
    assert service.get("/v1/nothing").status == 404
    assert service.get("/v1/../../etc/passwd").status == 404
    refused = service.get("/v1/predict")
    assert (refused.status, refused.headers["allow"]) == (405, "POST")
    assert service.post("/v1/predict", b"a=1", headers={"Content-Type": "text/csv"}).status == 415
    assert service.get("/healthz", headers={"Host": "evil.example"}).status == 421


def test_a_body_that_is_too_large_is_refused_before_it_is_read(service):
    said = service.post("/v1/predict", b"x", headers={"Content-Length": str(100 << 20)})
    assert said.status == 413


def test_without_a_key_nothing_is_answered_but_health(service):
    for path in ("/v1/schema", "/v1/models", "/metrics"):
        said = service.get(path, key=None)
        assert (said.status, said.headers["www-authenticate"]) == (401, 'Bearer realm="assay"')
    assert service.post("/v1/predict", {"row": ROW}, key="assay_000000000000_" + "A" * 43).status == 401
    assert service.get("/healthz", key=None).status == 200


def test_a_key_does_what_its_scopes_say_and_no_more_and_not_too_often(service):
    with store_of(service) as store:
        asks, secret = store.keys.make("asks", ("predict",), rate=600)
        _, slow = store.keys.make("slow", ("predict",), rate=6)
    assert service.post("/v1/predict", {"row": ROW}, key=secret).status == 200
    assert service.post("/v1/feedback", {"row": ROW, "label": "yes"}, key=secret).status == 403
    assert service.post("/v1/models/claims/rollback", {}, key=secret).status == 403
    first, *others = [service.post("/v1/predict", {"row": ROW}, key=slow) for _ in range(3)]
    assert first.status == 200
    assert {a.status for a in others} == {429}
    assert int(others[0].headers["retry-after"]) >= 1
    with store_of(service) as store:
        store.keys.revoke(asks.id)
    until = time.monotonic() + 10
    while service.post("/v1/predict", {"row": ROW}, key=secret).status != 401:
        assert time.monotonic() < until
        time.sleep(0.2)


def test_sentences_come_in_the_language_of_the_client(service):
    assert "请求体不是 JSON" in service.post("/v1/predict", b"{", headers={"Accept-Language": "zh-CN,zh;q=0.9"}).sentence


def test_answers_carry_headers_that_keep_browsers_from_guessing(service):
    headers = service.get("/healthz").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_schema_and_openapi_say_what_a_row_is_with_an_example_that_works(service):
    described = service.get("/v1/schema").json["models"][0]
    assert [c["name"] for c in described["columns"]] == ["amount", "kind", "note"]
    assert service.post("/v1/predict", {"row": described["example"]}).status == 200
    document = service.get("/openapi.json", key=None).json
    example = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]["examples"]["claims"]["value"]
    assert service.post("/v1/predict", example).status == 200


def test_metrics_count_what_was_asked(service):
    def count() -> float:
        found = re.search(r'^assay_predictions_total\{arm="champion",model="claims",version="1"\} (\S+)', service.get("/metrics").body.decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = count()
    service.post("/v1/predict", {"rows": [ROW] * 7})
    assert count() == before + 7


def test_metrics_count_labels_by_kind(service):
    number = service.post("/v1/predict", {"row": ROW}).json["id"]
    kinds = ("label", "accept", "reject")

    def counts() -> list[float]:
        text = service.get("/metrics").body.decode()
        found = [re.search(rf'^assay_feedback_total\{{kind="{k}",model="claims"\}} (\S+)', text, re.MULTILINE) for k in kinds]
        return [float(f[1]) if f else 0.0 for f in found]

    before = counts()
    assert service.post("/v1/feedback", {"items": [{"id": number, "label": "yes"}, {"id": number, "label": "no"}, {"id": number, "kind": "accept"}]}).status == 201
    until = time.monotonic() + 5
    while counts() != [before[0] + 2, before[1] + 1, before[2]]:
        assert time.monotonic() < until, (before, counts())
        time.sleep(0.05)


def test_personal_data_is_masked_by_pattern_and_check_digit():
    assert masked({"t": "mail a.b@c.de, card 4111 1111 1111 1111, 13800138000, ID 11010519491231002X", "n": 5}) == {"t": "mail [email], card [card], [phone], ID [id]", "n": 5}
    assert masked("order 4111 1111 1111 1112 of 2026-11-22, IBAN GB82 WEST 1234 5698 7654 32") == "order 4111 1111 1111 1112 of 2026-11-22, IBAN [iban]"


def test_a_promotion_changes_who_answers_without_a_lost_request(tmp_path, packed):
    other = bundle(tmp_path / "other.assay", seed=5)
    with running(tmp_path / "home", f"claims={packed}", "--no-page") as service:
        with store_of(service) as store:
            from assay.serve.held import served

            second = served(store, service.home, "claims", other)
        answers: list[tuple[int, int]] = []
        done = threading.Event()

        def keep_asking() -> None:
            while not done.is_set():
                said = service.post("/v1/predict", {"row": ROW})
                answers.append((said.status, said.json.get("version", 0)))

        threads = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        assert service.post("/v1/models/claims/promote", {"version": second.version, "reason": "test"}).status == 200
        time.sleep(0.5)
        assert service.post("/v1/models/claims/rollback", {"reason": "test"}).status == 200
        time.sleep(0.5)
        done.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in answers} == {200}
    versions = [v for _, v in answers]
    assert versions[0] == versions[-1] == 1
    assert 2 in versions


def test_a_challenger_answers_in_the_shadow_and_a_canary_its_share(tmp_path, packed):
    other = bundle(tmp_path / "other.assay", seed=5)
    with running(tmp_path / "home", f"claims={packed}", "--no-page") as service:
        with store_of(service) as store:
            from assay.serve.held import served

            version = served(store, service.home, "claims", other).version
        assert service.post("/v1/models/claims/challenge", {"version": version, "mode": "shadow"}).status == 200
        shadowed = service.post("/v1/predict", {"row": ROW}).json["id"]
        assert service.post("/v1/models/claims/challenge", {"version": version, "mode": "canary", "share": 0.5}).status == 200
        versions = [service.post("/v1/predict", {"row": ROW}).json["version"] for _ in range(60)]
        assert service.stop() == 0
        with store_of(service) as store:
            shadows = {p.of: p for p in store.predictions.recent("claims", 1000, arm="shadow")}
    assert shadows[shadowed].version == version
    assert 10 < versions.count(version) < 50
    assert len(shadows) == 61


def test_a_stopped_service_has_written_everything_down(tmp_path, packed):
    with running(tmp_path / "home", f"claims={packed}", "--no-page") as service:
        ids = [service.post("/v1/predict", {"row": ROW}).json["id"] for _ in range(30)]
        assert service.stop() == 0
    with store_of(service) as store:
        assert all(store.predictions.get(i) is not None for i in ids)
        assert store.audit.verify().first_broken is None


def test_rows_are_left_out_where_they_must_not_be_kept_and_masked_where_asked(tmp_path, packed):
    for flags, kept in ((("--no-rows",), None), (("--mask",), "write to [email]")):
        with running(tmp_path / flags[0].strip("-"), f"claims={packed}", "--no-page", *flags) as service:
            number = service.post("/v1/predict", {"row": ROW | {"note": "write to a@b.cn"}}).json["id"]
            assert service.stop() == 0
            with store_of(service) as store:
                row = store.predictions.get(number).row
        assert (row["note"] if row else None) == kept


def test_pictures_come_as_files_or_data_uris_and_never_as_paths(tmp_path):
    import base64

    import numpy as np
    from pictures import png
    rng = np.random.default_rng(0)
    cells = [png((rng.random((12, 12, 3)) * 255 * (0.3 if i % 2 else 1)).astype(np.uint8)) for i in range(60)]
    data = Dataset(pl.DataFrame({"photo": pl.Series(cells, dtype=pl.Binary), "size": [float(i % 5) for i in range(60)], "broken": ["yes" if i % 2 else "no" for i in range(60)]}),
                   schema_of({"photo": "image", "size": "number", "broken": "category"}, target="broken"))
    made = bundle(tmp_path / "parts.assay", "image_features", data=data)
    with running(tmp_path / "home", made, "--no-page", "--keep-media") as service:
        uri = "data:image/png;base64," + base64.b64encode(cells[0]).decode()
        first = service.post("/v1/predict", {"row": {"photo": uri, "size": 1}}).json
        form = (b'--x\r\nContent-Disposition: form-data; name="photo"; filename="../../evil.png"\r\nContent-Type: image/png\r\n\r\n' + cells[0]
                + b'\r\n--x\r\nContent-Disposition: form-data; name="size"\r\n\r\n1\r\n--x--\r\n')
        second = service.post("/v1/predict", form, headers={"Content-Type": "multipart/form-data; boundary=x"}).json
        assert first["answer"] == second["answer"]
        assert first["probability"] == pytest.approx(second["probability"])
        for path in ("/etc/passwd", "../x.png", str(made)):
            assert service.post("/v1/predict", {"row": {"photo": path, "size": 1}}).status == 422
        out = io.BytesIO()
        pl.DataFrame({"photo": ["/etc/passwd"], "size": [1.0]}).write_ipc_stream(out)
        assert service.post("/v1/predict", out.getvalue(), headers={"Content-Type": ARROW}).status == 422
        assert service.stop() == 0
        with store_of(service) as store:
            kept = store.predictions.get(second["id"]).row["photo"]
    assert (service.home / "media" / kept["sha256"]).read_bytes() == cells[0]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_address_that_is_taken_is_said_before_anything_else(tmp_path, packed, service, workers):
    import sys

    for address, word in ((("127.0.0.1", str(service.port)), "another program"), (("203.0.113.7", "8080"), "could not be opened")):
        done = subprocess.run([sys.executable, "-m", "assay.cli", "serve", str(packed), "--home", str(tmp_path / "home"), "--host", address[0], "--port", address[1], "--workers", workers],
                              capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        assert word in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("arguments", "word"), [
    (("missing.assay",), "missing.assay"), ((), "no model"), (("a b=x.assay",), "a b"), (("--host", "0.0.0.0", "--no-keys"), "loopback"), (("--tls-cert", "x.pem"), "--tls-key"),
    (("--email", "me@here"), "smtp://"), (("--webhook", "ftp://x"), "ftp://x"),
])
def test_a_service_that_cannot_start_says_why_in_one_sentence(tmp_path, packed, arguments, word):
    import sys

    given = arguments if (arguments and "=" in arguments[0]) or "missing" in str(arguments) or not arguments else (str(packed), *arguments)
    done = subprocess.run([sys.executable, "-m", "assay.cli", "serve", *given, "--home", str(tmp_path / "home"), "--port", "1"], capture_output=True, text=True, timeout=60)
    assert done.returncode in (2, 5)
    assert word in done.stderr
    assert "Traceback" not in done.stderr
