"""The service under attack: what must never happen is a 5xx, a traceback, or somebody else's data."""

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from serving import Service, bundle, running

from assay.errors import InputError
from assay.serve.auth import Bucket
from assay.serve.http import Refused
from assay.serve.oidc import Provider
from assay.store.store import Store

ROW = {"amount": 120.5, "kind": "hail", "note": "clear case 3"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return bundle(tmp_path_factory.mktemp("packed") / "claims.assay")


@pytest.fixture(scope="module")
def service(tmp_path_factory, packed):
    with running(tmp_path_factory.mktemp("served") / "home", f"claims={packed}", "--no-page") as found:
        yield found


def raw(service: Service, sent: bytes, *, wait_s: float = 5.0) -> bytes:
    """What comes back for these bytes, until the server closes or nothing comes any more."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=wait_s) as connection:
        connection.sendall(sent)
        out = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(65536):
                out += part
        return out


def test_thousands_of_made_up_requests_get_an_answer_below_500(service):
    """Schemathesis over the service's own OpenAPI: valid and invalid bodies, headers, queries (10,000 and more in the slow test)."""
    assert fuzzed(service, examples=60) >= 300


@pytest.mark.slow
def test_ten_thousand_made_up_requests_get_an_answer_below_500(service):
    assert fuzzed(service, examples=1600) >= 10_000


def fuzzed(service: Service, *, examples: int) -> int:
    import requests
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    document = service.get("/openapi.json", key=None).json
    document["servers"] = [{"url": f"http://127.0.0.1:{service.port}/"}]
    schema = schemathesis.openapi.from_dict(document)
    session, count, bad = requests.Session(), 0, []
    session.headers["Authorization"] = f"Bearer {service.key}"
    modes = list(schemathesis.GenerationMode)
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in modes:
            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate], derandomize=True)
            def attack(case) -> None:
                nonlocal count
                with contextlib.suppress(requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
                    answer = case.call(session=session, base_url=f"http://127.0.0.1:{service.port}", timeout=20)
                    count += 1
                    if answer.status_code >= 500 or "Traceback" in answer.text or (answer.status_code >= 400 and answer.request.method != "HEAD" and "sentence" not in answer.text
                                                                                   and answer.status_code != 400):
                        bad.append((answer.status_code, answer.request.method, answer.request.url, answer.request.body, answer.text[:300]))

            with contextlib.suppress(Exception) if mode is schemathesis.GenerationMode.NEGATIVE else contextlib.nullcontext():  # nothing can be wrong about a path without parameters
                attack()
    assert not bad, bad[:3]
    assert service.get("/readyz", key=None).status == 200
    return count


@pytest.mark.parametrize("sent", [
    b"\x00\x01\x02\x03\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + b"x: " + b"y" * 200_000 + b"\r\n\r\n", b"GET /%00%ff%2e%2e%2f HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    b"GET /../../../etc/passwd HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", b"GET //evil.example/%5c HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
], ids=["bytes", "version", "negative length", "smuggling", "long path", "long header", "nul", "climbs", "slashes"])
def test_what_is_hardly_http_does_no_harm(service, sent):
    said = raw(service, sent, wait_s=1.0)
    assert not said or said.split(b" ")[1][:1] == b"4", said[:200]
    assert service.get("/healthz", key=None).status == 200


def test_who_sends_a_head_drop_by_drop_is_hung_up_on_and_others_are_answered(service):
    slow = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(50)]
    try:
        for one in slow:
            one.sendall(b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\n")
        begin = time.monotonic()
        assert service.post("/v1/predict", {"row": ROW}).status == 200
        assert time.monotonic() - begin < 5
        slow[0].settimeout(20)
        assert b"408" in slow[0].recv(200)
    finally:
        for one in slow:
            one.close()


def test_a_body_larger_than_it_says_or_streamed_without_end_is_cut_off(service):
    head = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer " + service.key.encode() + b"\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        said = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head)
            for _ in range(40):
                connection.sendall(chunk)
            said = connection.recv(1000)
    assert not said or b" 413 " in said
    assert service.get("/healthz", key=None).status == 200


def test_a_key_in_a_request_is_in_no_log(service):
    service.post("/v1/predict", {"row": ROW}, key="assay_000000000000_" + "S" * 43)
    log = service.log.read_text(encoding="utf-8")
    assert "S" * 43 not in log
    assert log.count(service.key) == 2  # where it was handed out, and in the curl line beside it


def test_one_tenants_key_does_not_open_another_tenants_store(tmp_path, packed, service):
    with running(tmp_path / "home", f"claims={packed}", "--no-page") as other:
        number = service.post("/v1/predict", {"row": ROW}).json["id"]
        assert other.post("/v1/predict", {"row": ROW}, key=service.key).status == 401
        assert other.post("/v1/feedback", {"id": number, "label": "yes"}).status == 404


def test_a_feedback_id_of_another_model_is_refused(tmp_path, packed):
    with running(tmp_path / "home", f"a={packed}", f"b={packed}", "--no-page") as service:
        number = service.post("/v1/predict?model=a", {"row": ROW}).json["id"]
        assert service.post("/v1/predict", {"row": ROW}).status == 422
        assert service.post("/v1/feedback?model=b", {"id": number, "label": "yes"}).status == 404
        assert service.post("/v1/feedback?model=a", {"id": number, "label": "yes"}).status == 201


def test_expired_keys_open_nothing(service):
    with Store.open(service.home / "store.sqlite", create=False) as store:
        _, secret = store.keys.make("short", ("predict",), ttl_s=1.0)
    assert service.post("/v1/predict", {"row": ROW}, key=secret).status == 200
    time.sleep(1.2)
    assert service.post("/v1/predict", {"row": ROW}, key=secret).status == 401


def test_a_bucket_lets_its_rate_through_and_says_when_to_come_again():
    bucket = Bucket(1000.0, burst=3)
    assert [bucket.take() for _ in range(3)] == [0.0] * 3
    assert 0 < bucket.take() <= 0.001


def test_https_with_a_certificate_of_ones_own(tmp_path, packed):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    _certificate(cert, key)
    import os

    from serving import free_port
    port = free_port()
    import sys

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "assay.cli", "serve", f"claims={packed}", "--home", str(tmp_path / "home"), "--port", str(port), "--no-page", "--tls-cert", str(cert),
                                    "--tls-key", str(key)], stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        context = ssl.create_default_context(cafile=str(cert))
        until = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
                    secure.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                    said = b""
                    while part := secure.recv(4096):
                        said += part
                    break
            except (ConnectionRefusedError, ConnectionResetError):
                assert time.monotonic() < until
                time.sleep(0.1)
        assert b"200 OK" in said
        assert b"strict-transport-security" in said
    finally:
        process.terminate()
        process.wait(30)


def _certificate(cert: Path, key: Path) -> None:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key()).serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(private, hashes.SHA256()))
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


# ---- tokens of an identity provider


@pytest.fixture(scope="module")
def provider():
    """An identity provider on loopback: discovery, keys; and how it signs."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key())) | {"kid": "one", "use": "sig", "alg": "RS256"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = f"http://127.0.0.1:{self.server.server_port}"
            body = {"/.well-known/openid-configuration": {"issuer": address, "jwks_uri": address + "/keys"}, "/keys": {"keys": [public]}}.get(self.path, {})
            raw = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    issuer = f"http://127.0.0.1:{server.server_port}"

    def token(algorithm: str = "RS256", secret: object = private, kid: str = "one", **claims: object) -> str:
        now = int(time.time())
        return jwt.encode({"iss": issuer, "aud": "assay", "sub": "somebody", "iat": now, "exp": now + 600, "scope": "assay:predict"} | claims, secret, algorithm=algorithm, headers={"kid": kid})

    yield issuer, token, private
    server.shutdown()


def test_a_token_of_the_provider_opens_what_its_scopes_say(provider, tmp_path, packed):
    issuer, token, _ = provider
    with running(tmp_path / "home", f"claims={packed}", "--no-page", "--oidc-issuer", issuer, "--oidc-audience", "assay") as service:
        assert service.post("/v1/predict", {"row": ROW}, key=token()).status == 200
        assert service.post("/v1/feedback", {"row": ROW, "label": "yes"}, key=token()).status == 403
        assert service.post("/v1/predict", {"row": ROW}, key=token(aud="another")).status == 401
        assert service.post("/v1/predict", {"row": ROW}, key=service.key).status == 200


def test_forged_and_stale_tokens_open_nothing(provider):
    import jwt
    from cryptography.hazmat.primitives.asymmetric import rsa

    issuer, token, _ = provider
    door = Provider(issuer, "assay")
    assert door.key_of(token()).scopes == ("predict",)
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    head, body, sign = token().split(".")
    none = jwt.encode({"iss": issuer, "aud": "assay", "sub": "x", "exp": int(time.time()) + 99, "scope": "admin"}, None, algorithm="none")
    for bad in (token(secret=stranger), token(exp=int(time.time()) - 100), token(iss="https://evil.example"), token(aud="other"), token(kid="two"), none, f"{head}.{body}.{sign[::-1]}", "a.b.c",
                token(algorithm="HS256", secret="x" * 40), token(nbf=int(time.time()) + 600)):
        with pytest.raises(Refused) as refused:
            door.key_of(bad)
        assert refused.value.http_status == 401


def test_keys_of_a_provider_come_over_https_or_from_loopback_only():
    with pytest.raises(InputError, match="https"):
        Provider("http://idp.example", "assay", jwks="http://idp.example/keys")
    with pytest.raises(InputError, match="audience"):
        Provider("https://idp.example", "")


def test_a_body_that_never_comes_is_given_up_with_a_sentence(tmp_path, packed):
    with running(tmp_path / "home", f"claims={packed}", "--no-page", "--deadline", "1") as service:
        head = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer " + service.key.encode() + b"\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n"
        assert b" 408 " in raw(service, head, wait_s=3.0)
        assert b" 408 " in raw(service, head + b'{"row": {', wait_s=3.0)
