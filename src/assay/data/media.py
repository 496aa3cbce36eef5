"""Images, sounds and sequences as cells: what a cell of bytes is, and its decoding into numbers.

A cell of kind image or audio holds a file's bytes as they were found; a sequence holds float32 numbers, steps x channels, little-endian.
Nothing is trusted: a cell is decoded by its first bytes, not by a name, and every limit is checked before memory is taken.
"""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np

from assay.errors import MissingExtra, ReadError
from assay.words import Text, say

MOST_PIXELS = 100_000_000  # a larger picture is refused, unless it is a JPEG, which can be decoded small
MOST_SOUND_S = 3600.0
_MAGIC = (
    (b"\xff\xd8\xff", "image"), (b"\x89PNG\r\n\x1a\n", "image"), (b"BM", "image"), (b"GIF8", "image"), (b"II*\x00", "image"), (b"MM\x00*", "image"),
    (b"fLaC", "audio"), (b"OggS", "audio"), (b"ID3", "audio"), (b"\xff\xfb", "audio"), (b"\xff\xf3", "audio"),
)


class Broken(Exception):
    """A cell that cannot be decoded. Carries the reason as a Text, to be finished with the cell's place."""

    def __init__(self, reason: Text) -> None:
        self.reason = reason
        super().__init__(str(reason))


def kind_of(head: bytes) -> str | None:
    """'image' or 'audio' by the first 12 bytes or more, None for anything else."""
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"WAVE": "audio"}.get(head[8:12])
    if head[:2] == b"BM":  # two letters alone would be any text
        return "image" if len(head) > 17 and struct.unpack_from("<I", head, 14)[0] in (12, 40, 52, 56, 64, 108, 124) else None
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


# ---- images


def size_of(cell: bytes) -> tuple[int, int]:
    """(height, width) in pixels, read from the head alone. Raises Broken."""
    with _opened(cell) as image:
        return image.height, image.width


def pixels(cell: bytes, side: int | tuple[int, int], *, grey: bool = False) -> np.ndarray:
    """One image as uint8, shape (height, width, 3), or (height, width, 1) for grey, resized to `side` (both, or (height, width)).

    Turned upright by its EXIF tag; the first picture of an animation; what is transparent becomes white; 16 bits are scaled
    by the darkest and the lightest pixel, because nobody says which of the 65,536 steps were used. Raises Broken, MissingExtra.
    """
    height, width = (side, side) if isinstance(side, int) else side
    from PIL import Image, ImageOps

    with _opened(cell) as image:
        if image.width * image.height > MOST_PIXELS:
            image.draft(image.mode, (width, height))  # JPEG: decoded at an eighth of its size, or more
            if image.width * image.height > MOST_PIXELS:
                raise Broken(say("it is {width:,} x {height:,} pixels, above the limit of {most:,} in all", width=image.width, height=image.height, most=MOST_PIXELS))
        elif min(image.width // width, image.height // height) >= 2:
            image.draft(image.mode, (2 * width, 2 * height))
        try:
            made = ImageOps.exif_transpose(image)
            if made.mode in ("I", "F") or made.mode.startswith("I;16"):
                made = _eight_bits(made)
            if made.mode in ("RGBA", "LA", "PA") or "transparency" in made.info:
                made = made.convert("RGBA")
                made = Image.alpha_composite(Image.new("RGBA", made.size, (255, 255, 255, 255)), made)
            made = made.convert("L" if grey else "RGB")
            if made.size != (width, height):
                made = made.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
            return np.asarray(made, dtype=np.uint8).reshape(height, width, -1)
        except (OSError, ValueError, SyntaxError, MemoryError, struct.error, Image.DecompressionBombError) as error:
            raise Broken(say("it breaks off or is damaged ({error})", error=str(error)[:80] or type(error).__name__)) from None


def _opened(cell: bytes):  # type: ignore[no-untyped-def]
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("pillow", extra="media") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large picture warns; the limit here is our own
            Image.MAX_IMAGE_PIXELS = None
            return Image.open(io.BytesIO(cell), formats=("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"))
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        what = say("it is empty") if not cell else say("it is no picture that can be read ({error})", error=type(error).__name__)
        raise Broken(what) from None


def _eight_bits(image):  # type: ignore[no-untyped-def]
    from PIL import Image

    values = np.asarray(image).astype(np.float32)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return Image.fromarray((np.nan_to_num(values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))


# ---- sounds


def wave(cell: bytes, rate: int) -> np.ndarray:
    """One sound as float32 in -1 to 1, shape (samples,), at `rate` samples a second; channels are averaged. Raises Broken, MissingExtra."""
    samples, own = _samples(cell)
    if not len(samples):
        raise Broken(say("it holds no sound at all"))
    if own != rate:
        from scipy.signal import resample_poly

        common = int(np.gcd(own, rate))
        samples = resample_poly(samples, rate // common, own // common)
    return np.nan_to_num(samples).astype(np.float32)


def rate_of(cell: bytes) -> int:
    """Samples a second. Raises Broken, MissingExtra."""
    if cell[:4] == b"RIFF" and (at := cell.find(b"fmt ", 12, 4096)) > 0 and len(cell) >= at + 16:
        return int(struct.unpack_from("<I", cell, at + 12)[0])
    return _samples(cell)[1]


def _samples(cell: bytes) -> tuple[np.ndarray, int]:
    """(float samples (n,), rate)."""
    if not cell:
        raise Broken(say("it is empty"))
    if cell[:4] != b"RIFF":
        return _other_samples(cell)
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown chunks
            own, raw = wavfile.read(io.BytesIO(cell))
    except Exception as error:
        raise Broken(say("it is no sound that can be read ({error})", error=str(error)[:80])) from None
    if not 100 <= own <= 768_000 or len(raw) > own * MOST_SOUND_S:
        raise Broken(say("it has {n:,} samples at {rate:,} a second; up to an hour at 100 to 768,000 is read", n=len(raw), rate=own))
    if raw.dtype == np.uint8:
        samples = (raw.astype(np.float32) - 128) / 128
    elif raw.dtype.kind == "i":
        samples = raw.astype(np.float32) / float(2 ** (8 * raw.dtype.itemsize - 1))
    else:
        samples = raw.astype(np.float32)
    return samples.mean(axis=1) if samples.ndim > 1 else samples, int(own)


def _other_samples(cell: bytes) -> tuple[np.ndarray, int]:
    try:
        import soundfile
    except ImportError:
        raise MissingExtra("soundfile", extra="media") from None
    try:
        samples, own = soundfile.read(io.BytesIO(cell), dtype="float32", always_2d=True)
    except Exception as error:
        raise Broken(say("it is no sound that can be read ({error})", error=str(error)[:80])) from None
    return samples.mean(axis=1), int(own)


# ---- sequences


def packed(steps: np.ndarray) -> bytes:
    """A sequence, shape (steps, channels), as a cell."""
    return np.ascontiguousarray(steps, dtype="<f4").tobytes()


def steps(cell: bytes, channels: int) -> np.ndarray:
    """float32, shape (steps, channels); NaN where a value was missing."""
    if len(cell) % (4 * channels):
        raise ReadError("A sequence of {channels} channels was expected, and {n} bytes are none.", channels=channels, n=len(cell))
    return np.frombuffer(cell, dtype="<f4").reshape(-1, channels)
