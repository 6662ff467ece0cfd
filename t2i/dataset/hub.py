"""Datasets on the Hub, read as a stream through `datasets`: only our own copy of the pictures is kept.

Of a branch one commit is read. `datasets` 4 and later runs no code of a dataset. A row may name a file of the
same commit of the same dataset, and none elsewhere, least of all on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from t2i.dataset.parquet import needed, picture_in
from t2i.dataset.records import Columns, Record, captions_in
from t2i.errors import DatasetError, T2IError

NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})"
    r"(@(?P<revision>[A-Za-z0-9][\w./-]{0,99}))?(:(?P<split>[\w.-]{1,99}))?",
    re.ASCII,
)
ARCHIVES = ("zip://", "tar://")  # in which a file of the dataset may be


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the Hub as a person named it: owner/name[@REVISION][:SPLIT].

    Attributes:
        repo: "owner/name".
        revision: Branch, tag or commit; None is the main branch.
        split: Which part of it.
        config: Which of its variants; None where it has one.
    """

    repo: str
    revision: str | None = None
    split: str = "train"
    config: str | None = None


def find_commit(asked: HubDataset) -> str:
    """The commit that a branch is at.

    Raises:
        DatasetError: No such dataset or revision, or no network.
    """
    needed("datasets")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return str(HfApi().dataset_info(asked.repo, revision=asked.revision).sha)
    except GatedRepoError as error:
        raise DatasetError(
            f"{asked.repo} asks you to accept its terms first",
            f"open huggingface.co/datasets/{asked.repo}, accept, and log in with `hf auth login`",
        ) from error
    except RevisionNotFoundError as error:
        raise DatasetError(f"{asked.repo} has no revision {asked.revision!r}") from error
    except RepositoryNotFoundError as error:
        raise DatasetError(
            f"there is no dataset {asked.repo} on the Hub, nor a folder or file of that name here",
            "check the spelling, or log in if it is private",
        ) from error
    except Exception as error:  # the Hub's client raises many kinds for a network that does not answer
        raise _unreachable(asked, error) from error


def read_hub(asked: HubDataset, commit: str, columns: Columns) -> Iterator[Record]:
    """The pictures of a dataset on the Hub, in its order.

    Args:
        asked: Which.
        commit: From `find_commit`.
        columns: Where pictures and captions are.

    Raises:
        UsageError: `datasets` is not installed.
        DatasetError: No such split or variant, no pictures, or the network fails.
    """
    datasets = needed("datasets")
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(
            asked.repo, name=asked.config, split=asked.split, revision=commit, streaming=True
        )
        features = dict(rows.features or {})
        declared = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
        if columns.image is None and len(declared) == 1:
            columns = replace(columns, image=declared[0])
        image = columns.find_image(features, asked.repo)
        caption = columns.find_caption(features, asked.repo)
        rows = rows.select_columns([image] if caption is None else [image, caption])
        rows = rows.cast_column(image, datasets.Image(decode=False))
        names = getattr(features.get(caption), "names", None)  # of classes
        for number, row in enumerate(rows):
            place = f"{asked.repo}, {asked.split} {number}"
            data, name = _picture(row[image], image, place, f"hf://datasets/{asked.repo}@{commit}/")
            value = None if caption is None else row[caption]
            if names and isinstance(value, int):
                value = names[value].replace("_", " ") if value >= 0 else None
            yield Record(data, captions_in(value, place), place, name)
    except T2IError:
        raise
    except Exception as error:  # of many kinds: no such split, no network, a damaged file, a loading script
        raise _unreachable(asked, error) from error


def _picture(value: Any, column: str, place: str, home: str) -> tuple[bytes, str]:
    """The bytes and the name of a picture: in the row, or in a file of the dataset that the row names."""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or value.get("bytes") is not None:
        return picture_in(value, column, place)
    *inner, last = path.split("::")
    inside = last.startswith(home) and ".." not in last.split("/")
    if not inside or not all(link.startswith(ARCHIVES) for link in inner):
        raise DatasetError(f"{place}: {column} names {path[:120]!r}, which is not in the dataset")
    import fsspec

    with fsspec.open(path, "rb") as file:
        return file.read(), path


def _unreachable(asked: HubDataset, error: Exception) -> DatasetError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = " ".join(lines)[:300] or type(error).__name__
    return DatasetError(
        f"dataset {asked.repo} cannot be read from the Hub: {why}",
        "check the network, :SPLIT and --dataset-config; code in a dataset is never run",
    )
