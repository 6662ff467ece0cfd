"""Datasets that are no folder of pictures, and the folder that each is unpacked into once.

Parquet files, webdataset archives and datasets on the Hub become an ordinary folder with metadata.jsonl, in
`datasets/` of the user's cache (`T2I_CACHE`), named by their content. So everything behind it is the same as
for a folder: what is damaged, left out, held out, hashed, cached and resumed. It costs the bytes of the
pictures once more; without the folder the same command makes it again, with the same names and bytes.

Pictures are called by their number. Nothing in a dataset decides where a file goes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from t2i import durable
from t2i.dataset.archives import read_archive
from t2i.dataset.captions import OnFault, refuse
from t2i.dataset.decoding import SUFFIXES
from t2i.dataset.folder import PARTS, ImageFolder, read_folder
from t2i.dataset.hub import NAME, HubDataset, find_commit, read_hub
from t2i.dataset.parquet import read_parquet
from t2i.dataset.records import Columns, Record
from t2i.environment import is_offline
from t2i.errors import DatasetError, ModelError, UsageError
from t2i.hashes import hash_files, user_cache_folder

READERS = {".tar": read_archive, ".parquet": read_parquet}
SOURCE = "source.json"
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Packed:
    """A dataset that is unpacked before it is read.

    Attributes:
        name: As a person gave it.
        columns: Where its pictures and captions are.
        shards: Its files here, in order, each with its part: "train", "val" or "".
        hub: Which one of the Hub; None for files here.
        commit: Which state of that.
        folder: Where it is, or will be, unpacked.
    """

    name: str
    columns: Columns
    shards: tuple[tuple[Path, str], ...] = ()
    hub: HubDataset | None = None
    commit: str = ""
    folder: Path = Path()

    @property
    def asked(self) -> dict[str, object]:
        """What decides, besides the content, what is unpacked; the number changes with how that is done."""
        return {"version": 1, "columns": asdict(self.columns), "hub": self.hub and asdict(self.hub)}


def find_packed(
    name: str,
    columns: Columns | None = None,
    config: str | None = None,
    offline: bool = False,
    captions: str = "auto",
) -> Packed | None:
    """What a dataset is that is no folder of pictures; None where it is, or nothing.

    An existing folder or file wins over a dataset of the Hub, and so does what would lie in a folder that is
    here, unless it names a revision.

    Args:
        name: A .parquet or .tar file, a folder of them without a picture, or owner/name[@REVISION][:SPLIT].
        columns: Where pictures and captions are.
        config: Variant of a dataset on the Hub.
        offline: Never ask the Hub.
        captions: Where captions shall come from.

    Raises:
        UsageError: A variant of what is not on the Hub, captions that only a folder can have, or a package
            that is not installed.
        DatasetError: A file or folder that cannot be read, or that holds both kinds; no such dataset on the
            Hub, or not here while the network is not to be asked.
    """
    found = _found(name, columns or Columns(), config)
    if found is None:
        return None
    if captions not in ("auto", "metadata", "none"):
        raise UsageError(
            f"--captions {captions}: the captions of {name} are in a column", "--caption-column names it"
        )
    home, commit = user_cache_folder() / "datasets", ""
    if found.hub is not None:
        if offline or is_offline():
            return replace(found, folder=_unpacked_before(home, found))
        commit = find_commit(found.hub)
    told = json.dumps([found.asked, commit, *_digests(found.shards)], sort_keys=True)
    return replace(found, commit=commit, folder=home / hashlib.sha256(told.encode()).hexdigest()[:16])


def _found(name: str, columns: Columns, config: str | None) -> Packed | None:
    """What a name means, without its commit and folder."""
    path, found = Path(name), None
    try:
        if path.is_file():
            if path.suffix.lower() not in READERS:
                raise DatasetError(f"dataset {name} is neither a folder nor .parquet nor .tar")
            found = Packed(name, columns, ((path, ""),))
        elif path.is_dir():
            shards = _shards_in(path)
            found = Packed(name, columns, shards) if shards else None
    except OSError as error:
        raise DatasetError(f"dataset {name} cannot be read: {error.strerror}") from error
    asked = None if path.exists() else NAME.fullmatch(name)
    if asked is not None and path.suffix.lower() not in READERS:
        if asked["revision"] or not Path(path.parts[0]).is_dir():
            split = asked["split"] or "train"
            return Packed(name, columns, hub=HubDataset(asked["repo"], asked["revision"], split, config))
    if config is not None:
        raise UsageError(f"--dataset-config {config}: {name} is not a dataset of the Hub", "leave it out")
    return found


def unpack(packed: Packed) -> Iterator[str]:
    """Unpack a dataset into its folder, unless that was done before; yields lines for a person.

    Another process that unpacks the same one is waited for.

    Raises:
        UsageError: A package that reads it is not installed.
        DatasetError: It is damaged, or has no pictures.
        StorageError: No room, or no permission.
    """
    target = packed.folder
    with durable.as_storage_error(target), _alone(target):
        if not target.is_dir():
            durable.check_room(target, sum(path.stat().st_size for path, _ in packed.shards))
            with durable.staged_folder(target) as staged:
                yield from _write(packed, staged)
                source = {"asked": packed.asked, "commit": packed.commit, "name": packed.name}
                durable.write_json(staged / SOURCE, source)
        os.utime(target / SOURCE)  # the copy that was used last is that of the branch
    yield f"{packed.name} is unpacked in {target}"


def read_unpacked(
    name: str,
    packed: Packed | None,
    captions: str = "auto",
    caption: str | None = None,
    follow_symlinks: bool = False,
    image_column: str | None = None,
    caption_column: str | None = None,
    on_fault: OnFault = refuse,
) -> ImageFolder:
    """`read_folder` of a dataset, be it a folder or unpacked into one.

    Args:
        name: As a person gave it.
        packed: What it is, unpacked; None for a folder of pictures.
        captions: As for `read_folder`, and so the rest.
        caption: One for all.
        follow_symlinks: In an unpacked dataset there are no links.
        image_column: Of a folder's metadata; those of a packed dataset were told to `find_packed`.
        caption_column: Likewise.
        on_fault: Told of what cannot be used.

    Raises:
        UsageError: As `read_folder`.
        DatasetError: As `read_folder`.
    """
    if packed is None:
        columns = image_column, caption_column
        return read_folder(Path(name), captions, caption, follow_symlinks, on_fault, *columns)
    return read_folder(packed.folder, captions, caption, False, on_fault)


def _write(packed: Packed, folder: Path) -> Iterator[str]:
    """Fill a folder with the pictures and metadata.jsonl, telling now and then how far it is."""
    number, size, told = 0, 0, time.monotonic()
    parts = {part for _, part in packed.shards}
    for part in parts - {""}:
        (folder / part).mkdir()
    with open(folder / "metadata.jsonl", "w", encoding="ascii") as lines:
        for part, record in _records(packed):
            name = f"{part}/{number:08d}{record.suffix}".removeprefix("/")
            (folder / name).write_bytes(record.data)
            captions = record.captions[0] if len(record.captions) == 1 else list(record.captions) or ""
            lines.write(json.dumps({"file_name": name, "text": captions, "from": record.place}) + "\n")
            number, size = number + 1, size + len(record.data)
            if time.monotonic() - told > SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                yield f"{packed.name}: {number} pictures unpacked, {size / 1e6:.0f} MB"
    if not number:
        raise DatasetError(f"dataset {packed.name} holds no pictures")


def _records(packed: Packed) -> Iterator[tuple[str, Record]]:
    """The pictures of a dataset in its order, each with its part."""
    if packed.hub is not None:
        yield from (("", record) for record in read_hub(packed.hub, packed.commit, packed.columns))
    for path, part in packed.shards:
        yield from ((part, record) for record in READERS[path.suffix.lower()](path, packed.columns))


def _shards_in(root: Path) -> tuple[tuple[Path, str], ...]:
    """The files of a folder that has no picture; empty for any other. Those to test on are never read."""
    found: list[Path] = []
    for folder, _, names in os.walk(root):
        for name in names:
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES:
                return ()
            if suffix in READERS and not name.startswith("."):
                found.append(Path(folder, name))
    if len({path.suffix.lower() for path in found}) > 1:
        raise DatasetError(f"dataset {root} holds .parquet and .tar files", "give one of them")
    parts = {path: _part_of(path.relative_to(root)) for path in sorted(found)}
    kept = {path: part for path, part in parts.items() if part != "test"} or dict.fromkeys(parts, "")
    parted = set(kept.values()) == {"train", "val"}
    return tuple((path, part if parted else "") for path, part in kept.items())


def _part_of(path: Path) -> str:
    """What the folder or the name of a file says of it: that of train-00000-of-00002.parquet is "train"."""
    words = (path.parts[0] if len(path.parts) > 1 else "", path.stem.split("-")[0])
    return next((PARTS[word] for word in words if word in PARTS), "")


def _digests(shards: Sequence[tuple[Path, str]]) -> list[tuple[str, str, str]]:
    """Kind, part and SHA-256 of each file."""
    try:
        hashes = hash_files({str(path): path for path, _ in shards})
    except ModelError as error:
        raise DatasetError(f"dataset {error.message}") from error
    return [(path.suffix.lower(), part, hashes[str(path)]) for path, part in shards]


def _unpacked_before(home: Path, packed: Packed) -> Path:
    """The copy of a dataset of the Hub that was used last, for whoever may not ask the network."""
    found: list[tuple[float, Path]] = []
    for source in home.glob(f"*/{SOURCE}"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(source.read_bytes())["asked"] == packed.asked:
                found.append((source.stat().st_mtime, source.parent))
    if not found:
        raise DatasetError(
            f"dataset {packed.name} is not on this machine, and the network is not to be asked",
            "no file or folder has that name; run it once without --offline and HF_HUB_OFFLINE",
        )
    return max(found)[1]


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold what is unpacked for this process; what one that was killed has left goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f"{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in target.parent.glob(f"{durable.TEMPORARY_PREFIX}*-{target.name}"):
            durable.remove(left)
        yield
