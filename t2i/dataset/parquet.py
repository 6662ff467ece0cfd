"""Parquet files with a column of pictures and one of captions, as `datasets` writes them.

pyarrow reads them; it comes with `pip install "t2i[datasets]"`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from t2i.dataset.records import Columns, Record, captions_in
from t2i.errors import DatasetError, UsageError

ROWS_AT_ONCE = 16


def needed(name: str) -> ModuleType:
    """A library of the extra.

    Raises:
        UsageError: It is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"this dataset needs the package {name.partition('.')[0]}, which is not installed",
            'pip install "t2i[datasets]"',
        ) from error


def read_parquet(path: Path, columns: Columns) -> Iterator[Record]:
    """The pictures of a parquet file, in its order.

    Raises:
        UsageError: pyarrow is not installed.
        DatasetError: No such file, damaged, or without what the columns name.
    """
    parquet, arrow = needed("pyarrow.parquet"), needed("pyarrow")
    try:
        with parquet.ParquetFile(path) as file:
            there = file.schema_arrow.names
            image = columns.find_image(there, path.name)
            caption = columns.find_caption(there, path.name)
            wanted = [image] if caption is None else [image, caption]
            number = 0
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted):
                for row in batch.to_pylist():
                    place = f"{path.name}, row {number}"
                    data, name = picture_in(row[image], image, place)
                    said = () if caption is None else captions_in(row[caption], place)
                    yield Record(data, said, place, name)
                    number += 1
    except arrow.ArrowException as error:
        why = str(error).strip().splitlines()[0][:200]
        raise DatasetError(
            f"{path} is damaged, or no parquet file: {why}", "download or make it again"
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {str(error)[:200]}") from error


def picture_in(value: Any, column: str, place: str) -> tuple[bytes, str]:
    """The bytes and the name of a picture in a row; no bytes where the row has none.

    Raises:
        DatasetError: The column holds something else, such as the name of a file, which is never opened.
    """
    if value is None:
        return b"", ""
    if isinstance(value, bytes):
        return value, ""
    if isinstance(value, dict) and {"bytes", "path"} >= set(value) and isinstance(value.get("bytes"), bytes):
        return value["bytes"], str(value.get("path") or "")
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path") is None:
        return b"", ""
    raise DatasetError(
        f"{place}: {column} holds no bytes of a picture", "--image-column names a column of pictures"
    )
