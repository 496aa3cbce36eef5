"""Where an endpoint is: its URL taken apart, and whether rows and key may go there."""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

from assay.case import Case
from assay.errors import EndpointError, InputError
from assay.words import Text, say

_named_by_user: set[str] = set()  # hosts that a case named in this process


def endpoint(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, path of chat/completions) of a base URL, given with or without /v1. Raises InputError."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise InputError("'{url}' is not the URL of an endpoint. Write it like https://host/v1 or http://127.0.0.1:8080.", url=_bare(url))
    if parts.username or parts.password or parts.query:
        raise InputError(
            "The URL of the endpoint must not carry a user, a password or a query, because it is stored. "
            "Put the key into the environment variable ASSAY_LLM_KEY."
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    if not any(re.match(r"v\d", segment) for segment in path.split("/")):
        path += "/v1"
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path + "/chat/completions"


def is_loopback(url: str) -> bool:
    """Whether the URL stays on this machine."""
    host = endpoint(url)[1]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def endpoint_of(case: Case) -> dict[str, Any] | Text:
    """The endpoint, model and prices that a case names, as params of a candidate, or the reason why it cannot be asked."""
    if not case.llm_url or not case.llm_model:
        return say("no endpoint was given: --llm URL MODEL")
    try:
        endpoint(case.llm_url)
    except InputError as error:
        return error.text
    if case.offline and not is_loopback(case.llm_url):
        return say("the case is offline, and {url} is not on this machine", url=case.llm_url)
    return {"url": case.llm_url, "model": case.llm_model, "price_in": case.llm_price_in, "price_out": case.llm_price_out}


def money_of(params: dict[str, Any], tokens_in: float, tokens_out: float) -> float | None:
    """By the prices in `params`, per million tokens; None where none was given: unknown is not free."""
    price_in, price_out = params.get("price_in"), params.get("price_out")
    return None if price_in is None or price_out is None else (tokens_in * price_in + tokens_out * price_out) / 1e6


def trust(url: str) -> None:
    """The user named this endpoint: rows and key may go to its host, in this process."""
    _named_by_user.add(endpoint(url)[1])


def trusted(url: str) -> None:
    """Raise EndpointError if only a file names this endpoint: a bundle from a stranger must not collect rows and keys.

    This machine is always trusted; another host if a case named it, or if it stands in ASSAY_LLM_HOSTS (comma separated).
    """
    host = endpoint(url)[1]
    allowed = {h.strip() for h in os.environ.get("ASSAY_LLM_HOSTS", "").split(",")}
    if not is_loopback(url) and host not in allowed | _named_by_user:
        raise EndpointError(
            "This model sends every row, and your key, to {host}. If that is wanted, put {host} into the environment variable ASSAY_LLM_HOSTS.",
            host=host)


def key_of_environment() -> str:
    """The endpoint's key, '' where none is set. Read when a request leaves; never stored, logged or shown."""
    return (os.environ.get("ASSAY_LLM_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()


def connection(scheme: str, host: str, port: int, timeout_s: float) -> http.client.HTTPConnection:
    """Not opened yet. Certificates are checked."""
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


def json_headers(key: str, accept: str = "application/json") -> dict[str, str]:
    """Of a request whose body is JSON."""
    out = {"Content-Type": "application/json", "Accept": accept, "User-Agent": "assay"}
    return out | {"Authorization": f"Bearer {key}"} if key else out


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bare(url: str) -> str:
    """The URL without what might be a secret."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])
