"""What the page costs: seconds and memory until it is made, and for each open view.

    python bench/page.py            # needs a service's home in ./assay-home, or --home
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import time
from pathlib import Path


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def visit(gate, path: str) -> int:
    """Bytes of the page, as one browser without keys asks for it."""
    size = 0

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        nonlocal size
        size += len(message.get("body", b""))

    headers = [(b"host", b"127.0.0.1"), (b"accept", b"text/html")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
             "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http"}
    await gate(scope, receive, send)
    return size


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, default=Path("assay-home"))
    parser.add_argument("--visits", type=int, default=20)
    given = parser.parse_args()
    from assay.serve.server import Options, service

    app = service(Options(home=str(given.home), keys=False))
    before, began = resident_mb(), time.perf_counter()
    from assay.serve.page import application

    gate = await asyncio.to_thread(application, app, given.home, lang="en")
    made_s, made_mb = time.perf_counter() - began, resident_mb()
    began = time.perf_counter()
    size = await visit(gate, "/")
    first_s, first_mb = time.perf_counter() - began, resident_mb()
    began = time.perf_counter()
    for _ in range(given.visits):
        await visit(gate, "/")
    each_s = (time.perf_counter() - began) / given.visits
    print(json.dumps({"service_mb": round(before, 1), "made_s": round(made_s, 2), "made_mb": round(made_mb - before, 1), "first_visit_s": round(first_s, 2),
                      "first_visit_mb": round(first_mb - made_mb, 1), "visit_ms": round(1000 * each_s, 1), "visit_mb": round((resident_mb() - first_mb) / given.visits, 3),
                      "page_kb": round(size / 1024, 1), "visits": given.visits}, indent=1))
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
