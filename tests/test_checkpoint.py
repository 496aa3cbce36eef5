"""Weights files are read as data: as torch reads them, and nothing that they name is run."""

import contextlib
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.neural.checkpoint import Checkpoint, Unreadable, checkpoint_of
from assay.words import Text

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A checkpoint with everything that occurs: dtypes, views, shared storages, parameters, odd settings, what nobody needs."""
    torch.manual_seed(0)
    whole = torch.randn(6, 5)
    state = OrderedDict(a=whole, turned=whole.t(), part=whole[2:4, 1:3], half=torch.randn(3).half(), brain=torch.randn(2, 2).bfloat16(),
                        long=torch.arange(4), flag=torch.tensor([True, False]), one=torch.tensor(2.5), none=torch.zeros(0, 3),
                        learnt=torch.nn.Parameter(torch.randn(2)), double=torch.randn(2).double(), bytes=torch.arange(3, dtype=torch.uint8))
    state._metadata = OrderedDict({"": {"version": 1}})
    path = tmp_path_factory.mktemp("checkpoint") / "made.ckpt"
    torch.save({"config": {"width": 5, "rate": 0.5, "dtype": torch.float32, "size": torch.Size([2, 3]), "shift": None, "on": True},
                "architecture_name": "made", "state_dict": state, "optimizer": {"state": {0: torch.randn(3)}, "seen": {1, 2}}}, path)
    return path


def test_a_checkpoint_reads_as_torch_reads_it(file, tmp_path):
    from safetensors.torch import load_file

    found = checkpoint_of(file)
    assert isinstance(found, Checkpoint)
    wanted = torch.load(file, weights_only=True)["state_dict"]
    found.save(tmp_path / "w.safetensors")
    ours = load_file(tmp_path / "w.safetensors")
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(ours[k], wanted[k].detach()) and ours[k].dtype == wanted[k].dtype for k in wanted)
    assert found.settings == {"architecture_name": "made", "config": {"width": 5, "rate": 0.5, "dtype": "torch.float32", "size": [2, 3],
                                                                      "shift": None, "on": True}}
    assert found.weights == sum(t.numel() for t in wanted.values())
    again = checkpoint_of(tmp_path / "w.safetensors")
    assert isinstance(again, Checkpoint)
    assert again.settings == found.settings
    assert again.ready
    again.save(tmp_path / "v.safetensors")
    assert (tmp_path / "v.safetensors").read_bytes() == (tmp_path / "w.safetensors").read_bytes()


def test_the_package_of_tabpfn_reads_what_is_written(file, tmp_path):
    checkpoint = pytest.importorskip("tabpfn.checkpoint")

    checkpoint_of(file).save(tmp_path / "w.safetensors")
    found = checkpoint.Checkpoint(tmp_path / "w.safetensors").load()
    assert found["architecture_name"] == "made"
    assert found["config"]["width"] == 5


def test_bare_safetensors_take_their_settings_from_a_config_beside_them(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(3, np.float32)}, tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text('{"width": 3}')
    found = checkpoint_of(tmp_path / "w.safetensors")
    assert isinstance(found, Checkpoint)
    assert found.settings == {"config": {"width": 3}}
    assert not found.ready
    (tmp_path / "config.json").write_text("{")
    assert "not json" in str(checkpoint_of(tmp_path / "w.safetensors"))


class _Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_that_a_file_names_is_run(tmp_path, protocol):
    path, target = tmp_path / "bomb.ckpt", tmp_path / "was_run"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": {}, "config": _Bomb(target)}, protocol=protocol))
    found = checkpoint_of(path)
    assert isinstance(found, Text)
    assert "was not opened" in str(found)
    assert not target.exists()


def _files(folder: Path, whole: bytes) -> dict[str, bytes]:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    head = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    short = struct.pack("<Q", len(head)) + head + bytes(8)
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("manifest.json", "{}")
    return {
        "empty": b"", "pointer": pointer, "catboost": b"CBM1" + bytes(100), "lightgbm": b"tree\nversion=v4\n", "page": b"<!DOCTYPE html><html>",
        "gguf": b"GGUF" + bytes(50), "pickle": pickle.dumps({"a": 1}, protocol=2), "noise": bytes(range(7, 200)), "cut": whole[: len(whole) * 6 // 10],
        "cut early": whole[:40], "cut safetensors": short, "zip": (folder / "other.zip").read_bytes(),
    }


@pytest.mark.parametrize(("name", "says"), [
    ("empty", "an empty file"), ("pointer", "a pointer of git-lfs"), ("catboost", "a CatBoost model"), ("lightgbm", "a LightGBM model"),
    ("page", "a web page"), ("gguf", "GGUF"), ("pickle", "a bare pickle"), ("noise", "of another kind"), ("cut", "was cut off"),
    ("cut early", "was cut off"), ("cut safetensors", "was cut off"), ("zip", "torch did not write it"),
])
def test_a_wrong_file_gets_one_sentence_in_both_languages(file, tmp_path, name, says):
    path = tmp_path / "weights.ckpt"
    path.write_bytes(_files(tmp_path, file.read_bytes())[name])
    found = checkpoint_of(path)
    assert isinstance(found, Text)
    assert says in str(found)
    assert "weights.ckpt" in str(found)
    assert "\n" not in str(found)
    assert found.to("zh") != str(found)


def test_a_file_that_is_not_there_or_is_a_folder_is_named(tmp_path):
    assert str(checkpoint_of(tmp_path / "x.ckpt")) == f"there is no weights file '{tmp_path / 'x.ckpt'}'"
    assert "could not be read" in str(checkpoint_of(tmp_path))


@given(at=st.integers(0, 10**9), change=st.binary(min_size=1, max_size=6), inside=st.booleans())
def test_whatever_a_file_holds_is_weights_or_a_sentence(file, tmp_path_factory, at, change, inside):
    """Bytes changed anywhere, or inside the pickle of a zip whose checksums are right."""
    raw = bytearray(file.read_bytes())
    path = tmp_path_factory.getbasetemp() / "changed.ckpt"
    if inside:
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
            for info in old.infolist():
                held = bytearray(old.read(info))
                if info.filename.endswith("data.pkl"):
                    held[at % len(held): at % len(held) + len(change)] = change
                new.writestr(info.filename, bytes(held))
    else:
        raw[at % len(raw): at % len(raw) + len(change)] = change
        path.write_bytes(raw)
    found = checkpoint_of(path)
    assert isinstance(found, Text | Checkpoint)
    if isinstance(found, Checkpoint):
        with contextlib.suppress(Unreadable):
            found.save(path.with_suffix(".out"))
