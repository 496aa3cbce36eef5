"""What a member may hold, told from its suffix and its first and last bytes. Kinds that can carry code are on no list."""

from __future__ import annotations

import codecs
import re
import struct
from pathlib import PurePosixPath

from assay.words import Text, say

SUFFIXES = (".json", ".safetensors", ".onnx", ".onnx_data", ".txt", ".parquet", ".gguf", ".model")
_FOREIGN = {
    b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gzip", b"7z\xbc\xaf\x27\x1c": "7z", b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"Rar!\x1a\x07": "rar", b"\x7fELF": "ELF", b"\x93NUMPY": "npy",
    b"\x89HDF": "HDF5",
}
_PICKLE = re.compile(rb"\x80[\x00-\x05]")  # the PROTO opcode and a protocol number
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def content_refused(name: str, size: int, head: bytes, tail: bytes) -> Text | None:
    """None if a member of this name may hold these bytes, else the reason. head: its first 4096 bytes; tail: its last 32."""
    suffix = PurePosixPath(name).suffix
    if suffix not in SUFFIXES:
        return say("the member '{name}' is of a kind that a bundle does not hold", name=name)
    weights = suffix == ".safetensors" and _looks_like(suffix, size, head, tail)  # a header of 128 bytes begins with 80 00, as a pickle may
    if _PICKLE.match(head) and not weights:
        return say("the member '{name}' holds {kind}", name=name, kind="pickle")
    foreign = next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)
    if head[257:262] == b"ustar":
        foreign = "tar"
    if tail[-22:-18] == b"PK\x05\x06":
        foreign = "zip"
    if foreign is not None:
        return say("the member '{name}' holds {kind}", name=name, kind=foreign)
    if not _looks_like(suffix, size, head, tail):
        return say("the member '{name}' does not begin like {kind}", name=name, kind=suffix)
    return None


def _looks_like(suffix: str, size: int, head: bytes, tail: bytes) -> bool:
    if suffix == ".json":
        return head.lstrip(b" \t\r\n")[:1] in list(map(bytes, zip(b'{["-0123456789tfn'))) and _is_text(head, size)
    if suffix == ".txt":
        return _is_text(head, size)
    if suffix == ".safetensors":
        return size >= 10 and 2 <= struct.unpack_from("<Q", head)[0] <= size - 8 and head[8:9] == b"{"
    if suffix == ".onnx":
        return head[:1] == b"\x08"  # the field ir_version, which every writer puts first
    if suffix == ".parquet":
        return size >= 12 and head[:4] == tail[-4:] == b"PAR1"
    if suffix == ".gguf":
        return head[:4] == b"GGUF"
    if suffix == ".model":
        return head[:1] == b"\n" or head[:5] == b"tree\n"  # SentencePiece, LightGBM text
    return True  # .onnx_data is bare numbers


def _is_text(head: bytes, size: int) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) == size)
    except UnicodeDecodeError:
        return False
    return not _NOT_TEXT.search(text)
