"""Pictures and sounds that lie in files: which file belongs to which row. A file is read when its column is asked for.

Three ways to say what a file shows: a subfolder for each class (also below train/ and test/), a table beside the files with a column of their
paths, or a table whose cells hold the files themselves. What a file is, its first bytes say; its name is only a reason to look.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from assay.data.encoding import short
from assay.data.media import kind_of
from assay.data.split import side_of
from assay.data.table import Held, Piece, Table
from assay.errors import ReadError
from assay.words import Text, say

NAMES = {"image": "image", "audio": "sound"}  # of the column of cells
MOST_MB = 1024  # of one file: an hour of sound at 48 kHz in 24 bits, two channels
READERS = 8  # files read at a time: waiting for a disk, not computing
_LOOKS = re.compile(r"\.(?:jpe?g|png|bmp|gif|tiff?|webp|wav|flac|ogg|mp3|heic|avif|jp2|svg|dcm|m4a|aac|wma|aiff?|opus)$", re.IGNORECASE)
_TABLES = re.compile(r"\.(?:csv|tsv|tab|jsonl|ndjson|parquet|pq)(?:\.gz)?$", re.IGNORECASE)
_MOST_FILES = 2_000_000
_LOOKED_AT = 40  # cells of a column that are looked up on disk to learn whether it names files


@dataclass(frozen=True)
class Cells:
    """A piece whose cells lie elsewhere: in files that one of its columns names, or in structs {bytes, path} as Hugging Face writes them.

    paths: {column of cells: column of paths below root}. A path that leads nowhere gives an empty cell.
    """

    piece: Piece
    root: Path
    paths: dict[str, str] = field(default_factory=dict)
    structs: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        named = {path: cells for cells, path in self.paths.items()}
        return [n for own in self.piece.names for n in ([own, named[own]] if own in named else [own])]

    @property
    def height(self) -> int:
        return self.piece.height

    def select(self, names: list[str], rows=None) -> pl.DataFrame:  # type: ignore[no-untyped-def]
        return self._filled(self.piece.select(list(dict.fromkeys(self.paths.get(n, n) for n in names)), rows), names)

    def probe(self) -> pl.DataFrame:
        frame = self.piece.probe()
        step = max(1, frame.height // 100)  # its cells tell how long cells are: a hundred files are enough
        return self._filled(frame.gather_every(step), self.names)

    def _filled(self, frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
        return pl.DataFrame([self._read(frame[self.paths[n]]).alias(n) if n in self.paths else self._inside(frame[n]) if n in self.structs else frame[n]
                             for n in names])

    def _read(self, paths: pl.Series) -> pl.Series:
        with ThreadPoolExecutor(READERS) as pool:
            cells = list(pool.map(lambda p: None if p is None else _bytes(self.root, p), paths.to_list()))
        return pl.Series(paths.name, cells, dtype=pl.Binary)

    def _inside(self, structs: pl.Series) -> pl.Series:
        fields = structs.struct
        held = fields.field("bytes").alias(structs.name)
        if not held.null_count() or "path" not in fields.fields:
            return held
        paths = fields.field("path").set(held.is_not_null(), None)
        refused = [p for p in paths.drop_nulls().to_list() if _leaves(p)]
        if refused:
            raise _outside(structs.name, refused[0], self.root)
        return pl.select(pl.coalesce(held, self._read(paths))).to_series().alias(structs.name)


def files_in(path: Path, one: Callable[[Path], Table]) -> Table | None:
    """The pictures or sounds of a folder as a table, or None if it holds none. one: reads a table that lies in the folder.

    Columns: those of the table beside the files, or file, image (or sound), class and split. Raises ReadError.
    """
    media, tables, others, doubtful = _walked(path)
    if not media and not doubtful:
        return None
    if not media:
        suffixes = sorted({f.suffix.lower() for f in doubtful})
        raise ReadError("The folder '{folder}' holds {n:,} images or sounds by their names ({suffixes}), but none begins like one that is read (jpg, png, bmp, gif, tiff, "
                        "webp; wav, flac, ogg, mp3). Convert them to one of these.", folder=path.name, n=len(doubtful), suffixes=suffixes)
    root = _unwrapped(path, [*media, *doubtful], tables)
    kinds = Counter(media.values())
    kind = kinds.most_common(1)[0][0]
    if len(kinds) > 1:
        odd = next(f for f, k in media.items() if k != kind)
        raise ReadError("The folder '{folder}' holds {images:,} pictures and {sounds:,} sounds, such as '{odd}'. Name a folder with one of the two.", folder=path.name,
                        images=kinds["image"], sounds=kinds["audio"], odd=odd.relative_to(path).as_posix())
    files = sorted([*media, *doubtful], key=lambda f: _natural(f.relative_to(path).as_posix()))
    named, notes = _by_table(path, tables, one)
    if named is not None:
        listed = {(named.root or path) / _plain(p) for c in named.media.values() if c for p in named.column(c).drop_nulls().to_list()}
        unnamed = len(files) - len(listed & set(files))
        more = [say("{n:,} files that no row of the table names are left out.", n=unnamed)] if unnamed else []
        return replace(named, notes=[*named.notes, *more])
    frame, said = _by_class(path, root, files)
    if others:
        said.append(say("Files that are no pictures or sounds are left alone: {names}.", names=[p.name for p in others[:5]] + ["..."] * (len(others) > 5)))
    cells = NAMES[kind]
    classes = frame["class"].n_unique() if "class" in frame.columns else 0
    if tables and classes < 2:  # a picture among the parts of a table
        return None
    what = say("{n:,} pictures", n=len(frame)) if kind == "image" else say("{n:,} sounds", n=len(frame))
    told = say("The folder '{folder}' holds {what} in {classes} classes, a subfolder each.", folder=path.name, what=what, classes=classes) if classes else say(
        "The folder '{folder}' holds {what}.", folder=path.name, what=what)
    piece = Cells(Held(frame), path, {cells: "file"})
    return Table([piece], [told, *notes, *said], media={cells: "file"}, target="class" if classes else None, root=path)


def looks_like_media(name: str) -> bool:
    return bool(_LOOKS.search(name))


def one_file(path: Path) -> Table:
    """A single picture or sound as a table of one row."""
    with path.open("rb") as file:
        cells = NAMES[kind_of(file.read(64)) or "image"]
    return Table([Cells(Held(pl.DataFrame({"file": [path.name]})), path.parent, {cells: "file"})], media={cells: "file"}, root=path.parent)


def with_files(table: Table, kinds: dict[str, str], apart: tuple[str | None, ...] = ()) -> Table:
    """The same table, with a column of cells beside each column that names files, and structs {bytes, path} opened.

    kinds: what the user says columns are. apart: columns that are something else for certain. Raises ReadError where the files are not there.
    """
    if table.media or not table.pieces:
        return table
    probe = table.pieces[0].probe()
    structs = tuple(n for n, t in probe.schema.items() if isinstance(t, pl.Struct) and {f.name: f.dtype for f in t.fields}.get("bytes") == pl.Binary)
    media: dict[str, str | None] = dict.fromkeys(structs)
    media |= {n: None for n, t in probe.schema.items() if t == pl.Binary and kind_in(probe[n])}
    root = table.root or Path()
    paths: dict[str, str] = {}
    for name, dtype in probe.schema.items():
        said = kinds.get(name)
        if dtype != pl.String or name in apart or name not in table.names or (said and said not in NAMES):
            continue
        cells_there = probe[name].drop_nulls()
        some = cells_there.gather_every(max(1, len(cells_there) // _LOOKED_AT)).to_list()
        if not some or not (said or (table.root and sum(bool(_LOOKS.search(p)) and "://" not in p for p in some) >= 0.9 * len(some))):
            continue
        heads = [(p, _head(root, p)) for p in some if not _leaves(p)]
        found = Counter(k for _, head in heads if head is not None and (k := kind_of(head)))
        there = any(head is not None for _, head in heads)
        if not there and not said and media:
            continue  # the cells themselves are in the table; this is what the files were called
        if bad := next((p for p in some if _leaves(p)), None):
            raise _outside(name, bad, root)
        if not there:
            raise ReadError("Column '{name}' names pictures or sounds, such as '{example}', but there is no such file in '{folder}'. Put the files there, or say that these "
                            "are only words: --kind {name}=category", name=name, example=some[0], folder=str(root)[-80:])
        kind = said or (found.most_common(1)[0][0] if found else "image")
        cells = NAMES[kind] if NAMES[kind] not in (*table.names, *paths) else f"{name}_{NAMES[kind]}"
        if bad := next((p for p in table.column(name).drop_nulls().to_list() if _leaves(p)), None):
            raise _outside(name, bad, root)
        paths[cells] = name
    if not paths and not structs:
        return replace(table, media=media)
    kept = None if table.kept is None else (*table.kept, *paths)
    return replace(table, pieces=[Cells(p, root, paths, structs) for p in table.pieces], media={**media, **paths}, kept=kept)


# ---- what lies in a folder


def _walked(path: Path) -> tuple[dict[Path, str], list[Path], list[Path], list[Path]]:
    """({picture or sound: kind}, tables, other files, files that are named like pictures and begin like none)."""
    media: dict[Path, str] = {}
    tables, others, doubtful = [], [], []
    seen = 0
    for p in path.rglob("*"):
        if any(name.startswith((".", "_")) for name in p.relative_to(path).parts) or not p.is_file():
            continue
        seen += 1
        if seen > _MOST_FILES:
            raise ReadError("The folder '{folder}' holds more than {most:,} files. Name a smaller folder, or join the parts.", folder=path.name, most=_MOST_FILES)
        if _TABLES.search(p.name):
            tables.append(p)
            continue
        with p.open("rb") as file:
            kind = kind_of(file.read(64))
        if kind:
            media[p] = kind
        elif _LOOKS.search(p.name):
            doubtful.append(p)
        else:
            others.append(p)
    return media, sorted(tables), sorted(others), sorted(doubtful)


def _by_table(path: Path, tables: list[Path], one: Callable[[Path], Table]) -> tuple[Table | None, list[Text]]:
    """The one table whose rows are files of the folder, and what is to be said of the others."""
    notes: list[Text] = []
    fitting: list[Table] = []
    for file in tables:
        try:
            table = replace(one(file), root=file.parent)
            if file.parent != path:  # a table in a subfolder may name its files from here or from there
                table = next((t for t in (replace(table, root=r) for r in (path, file.parent)) if _names_files(t)), table)
            if not _names_files(table):
                continue
            table = with_files(table, {})
        except ReadError as error:
            notes.append(say("'{file}' is left alone: {reason}", file=short(file), reason=error.text))
            continue
        column = next(c for c in table.media.values() if c)
        rows = table.column(column).drop_nulls()
        if rows.n_unique() < len(rows):
            notes.append(say("'{file}' has several rows for a file, so it is no list of them; it is left alone.", file=short(file)))
            continue
        fitting.append(replace(table, notes=[say("The files and what they show are listed in '{file}'.", file=short(file)), *table.notes]))
    if len(fitting) > 1:
        raise ReadError("The folder '{folder}' holds several tables that list its files: {names}. Name the one that counts.", folder=path.name,
                        names=[p.name for p in tables])
    return (fitting[0] if fitting else None), notes


def _names_files(table: Table) -> bool:
    root = table.root or Path()
    for name, dtype in (probe := table.pieces[0].probe()).schema.items():
        if dtype == pl.String:
            some = [p for p in probe[name].drop_nulls().head(_LOOKED_AT).to_list() if _LOOKS.search(p)]
            if any(not _leaves(p) and _head(root, p) is not None for p in some) or any(_leaves(p) for p in some):
                return True
    return False


def _unwrapped(path: Path, files: list[Path], tables: list[Path]) -> Path:
    """The folder in which the classes stand: further down where each folder holds but one."""
    root = path
    while True:
        inside = {f.relative_to(root).parts for f in files}
        tops = {parts[0] for parts in inside}
        if len(tops) != 1 or min(map(len, inside)) < 3 or side_of(next(iter(tops))):
            return root
        root = root / tops.pop()


def _by_class(path: Path, root: Path, files: list[Path]) -> tuple[pl.DataFrame, list[Text]]:
    """file, class and split of every file, as far as the folders say them."""
    notes: list[Text] = []
    parts = [f.relative_to(root).parts for f in files]
    tops = {p[0] for p in parts if len(p) > 1}
    sides = {t: side_of(t) for t in tops}
    split = len(tops) > 1 and all(sides.values()) and "train" in sides.values()
    depth = 1 if split else 0
    inside = [len(p) > depth + 1 for p in parts]
    if any(inside) and not all(inside):
        stray = [f for f, ok in zip(files, inside, strict=True) if not ok]
        notes.append(say("{n:,} files outside the subfolders are left alone, such as '{file}'.", n=len(stray), file=stray[0].relative_to(path).as_posix()))
        files, parts = zip(*((f, p) for f, p, ok in zip(files, parts, inside, strict=True) if ok), strict=True)  # type: ignore[assignment]
    columns: dict[str, list[str | None]] = {"file": [f.relative_to(path).as_posix() for f in files]}
    if any(inside):
        columns["class"] = [p[depth] for p in parts]
    if split:
        columns["split"] = [sides[p[0]] if len(p) > 1 else None for p in parts]
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)), notes


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(w), "") if w.isdigit() and w.isascii() else (1, 0, w) for w in re.split(r"(\d+)", name) if w]


# ---- one file


def _plain(path: str) -> str:
    return re.sub(r"^(?:\./)+", "", path.strip().replace("\\", "/"))


def _leaves(path: str) -> bool:
    """True for a path that is absolute or climbs: what a table names lies beside it."""
    plain = _plain(path)
    return plain.startswith(("/", "~")) or bool(re.match(r"[A-Za-z]:", plain)) or ".." in plain.split("/") or "\x00" in plain


def _outside(column: str, path: str, root: Path) -> ReadError:
    return ReadError("Column '{name}' names '{path}', which is outside of the folder '{folder}'. Paths have to lead from that folder to files in it: no '..', no beginning "
                     "with '/'.", name=column, path=path[:120], folder=root.name or str(root))


def _head(root: Path, path: str) -> bytes | None:
    """The first bytes of a file, None if there is none."""
    try:
        with (root / _plain(path)).open("rb") as file:
            return file.read(64)
    except (OSError, ValueError):
        return None


def _bytes(root: Path, path: str) -> bytes | None:
    file = root / _plain(path)
    try:
        if file.stat().st_size > MOST_MB << 20:
            raise ReadError("'{file}' has {size:,.0f} MB; up to {most:,} MB a file are read.", file=short(file), size=file.stat().st_size / 2**20, most=MOST_MB)
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return None
    except OSError as error:
        raise ReadError("'{file}' cannot be opened: {error}.", file=short(file), error=error.strerror or str(error)) from None


def kind_in(cells: pl.Series) -> str | None:
    """What most of some cells of bytes are: 'image', 'audio' or None. Empty ones have no say: they are broken files."""
    present = cells.drop_nulls()
    some = present.gather_every(max(1, len(present) // _LOOKED_AT)).to_list()
    kinds = Counter(kind_of(cell[:64]) for cell in some if cell)
    return kinds.most_common(1)[0][0] if kinds else None
