"""Bearer tokens of an identity provider: JSON Web Tokens (RFC 7519), checked against its published keys (RFC 7517)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from assay.errors import InputError, MissingExtra
from assay.serve.auth import scopes_of
from assay.serve.http import Refused
from assay.store.records import Key

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")  # never HS*: the public key would be the secret; never none
LEEWAY_S = 30
FRESH_S = 300.0  # the provider's keys are read again after this long, and at once for a key id that is new (at most each 10 s)


class Provider:
    """issuer and audience: what `iss` and `aud` must say. jwks: URL (https, or http on loopback) or file of the keys; None: found through the issuer's discovery document."""

    def __init__(self, issuer: str, audience: str, *, jwks: str | None = None) -> None:
        try:
            import jwt
        except ImportError:
            raise MissingExtra("pyjwt", extra="auth") from None
        self._jwt = jwt
        self._issuer, self._audience, self._source = issuer, audience, jwks
        self._keys: dict[str, Any] = {}
        self._read_at = 0.0
        if not audience:
            raise InputError("Tokens are only accepted for a named audience: give --oidc-audience too.")
        self._read()

    def key_of(self, token: str) -> Key:
        jwt = self._jwt
        try:
            head = jwt.get_unverified_header(token)
            claims = jwt.decode(token, self._signing_key(str(head.get("kid", "")), str(head.get("alg", ""))), algorithms=list(ALGORITHMS), audience=self._audience,
                                issuer=self._issuer, leeway=LEEWAY_S, options={"require": ["exp", "iss", "aud", "sub"]})
        except jwt.ExpiredSignatureError:
            raise Refused(401, "The token has expired. Ask the identity provider for a new one.") from None
        except jwt.InvalidTokenError as error:
            raise Refused(401, "The token is not accepted: {reason}.", reason=str(error)[:120].rstrip(".")) from None
        scopes = scopes_of(claims.get("scope") or claims.get("scp") or claims.get("roles") or ())
        return Key(id=f"oidc:{str(claims['sub'])[:48]}", name=str(claims.get("preferred_username") or claims["sub"])[:64], scopes=scopes, made=float(claims.get("iat", 0)),
                   expires=float(claims["exp"]))

    def _signing_key(self, kid: str, algorithm: str) -> Any:
        if algorithm not in ALGORITHMS:
            raise Refused(401, "The token is not accepted: it is signed with '{algorithm}'.", algorithm=algorithm[:20])
        age = time.monotonic() - self._read_at
        if age > FRESH_S or (kid not in self._keys and age > 10.0):
            self._read()
        try:
            return self._keys[kid] if kid else next(iter(self._keys.values()))
        except (KeyError, StopIteration):
            raise Refused(401, "The token is not accepted: the identity provider has no such signing key.") from None

    def _read(self) -> None:
        source = self._source
        if source is None:
            found = _document(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            source = found.get("jwks_uri")
            if not isinstance(source, str):
                raise InputError("The identity provider '{issuer}' names no jwks_uri. Give its keys with --oidc-jwks.", issuer=self._issuer)
        keys = {}
        for one in _document(source).get("keys", []):
            if isinstance(one, dict) and one.get("use", "sig") == "sig":
                try:
                    keys[str(one.get("kid", ""))] = self._jwt.PyJWK(one).key
                except self._jwt.PyJWTError:  # a kind of key that this library does not know signs no token that it accepts
                    continue
        if not keys:
            raise InputError("'{source}' holds no keys that tokens could be checked with.", source=source)
        self._keys, self._read_at = keys, time.monotonic()


def _document(source: str) -> dict[str, Any]:
    import urllib.error
    import urllib.request

    try:
        if source.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
            with urllib.request.urlopen(source, timeout=5) as answer:
                raw = answer.read(1 << 20)
        elif "://" in source:
            raise InputError("'{source}' is not read: keys come over https, or from a file.", source=source)
        else:
            raw = Path(source).read_bytes()
        found = json.loads(raw)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise InputError("The keys of the identity provider could not be read from '{source}': {reason}.", source=source, reason=str(error)[:120]) from None
    return found if isinstance(found, dict) else {}
