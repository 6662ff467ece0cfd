"""One picture with its captions out of a file that holds many, and the columns in which they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from t2i.dataset.captions import SIDECAR_LIMIT
from t2i.dataset.decoding import SUFFIXES
from t2i.errors import DatasetError

PICTURE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
CAPTION_COLUMNS = ("text", "caption", "captions", "txt", "prompt")
PICTURE_LIMIT = 1 << 29  # bytes: 64 megapixels of 16 bits and four channels, not compressed
MAGIC = ((b"\x89PNG\r\n\x1a\n", ".png"), (b"\xff\xd8\xff", ".jpg"))


@dataclass(frozen=True)
class Columns:
    """Where pictures and captions are.

    Attributes:
        image: Name of the column with the pictures; None: the first of `PICTURE_COLUMNS` that is there.
        caption: Likewise with the captions.
        captioned: Whether captions are wanted at all.
    """

    image: str | None = None
    caption: str | None = None
    captioned: bool = True

    @classmethod
    def of(cls, captions: str, one_for_all: str | None, image: str | None, caption: str | None) -> Columns:
        """The columns that the options of a command name.

        Args:
            captions: Where captions come from.
            one_for_all: The caption of all pictures; None = each has its own.
            image: Name of the column with the pictures.
            caption: Name of the column with the captions.
        """
        return cls(image, caption, captions != "none" and one_for_all is None)

    def find_image(self, there: Iterable[str], place: str) -> str:
        """The column of the pictures.

        Raises:
            DatasetError: There is none.
        """
        return _chosen("--image-column", self.image, PICTURE_COLUMNS, list(there), place)

    def find_caption(self, there: Iterable[str], place: str) -> str | None:
        """The column of the captions, if they are wanted.

        Raises:
            DatasetError: They are, and there is none.
        """
        if not self.captioned:
            return None
        return _chosen("--caption-column", self.caption, CAPTION_COLUMNS, list(there), place)


@dataclass(frozen=True)
class Record:
    """One picture and what is said of it.

    Attributes:
        data: The bytes of its file, unchanged; none where the set has none.
        captions: Possibly none.
        place: Of what, for a person.
        name: Of its file in the set; only its suffix is looked at.
    """

    data: bytes
    captions: tuple[str, ...]
    place: str
    name: str = ""

    @property
    def suffix(self) -> str:
        """By its content; where that is of no picture, by its name, so that it is told of as one."""
        if self.data[:4] == b"RIFF" and self.data[8:12] == b"WEBP":
            return ".webp"
        found = next((suffix for magic, suffix in MAGIC if self.data.startswith(magic)), None)
        own = PurePosixPath(self.name).suffix.lower()
        return found or (own if own in SUFFIXES else ".png")


def captions_in(value: Any, place: str) -> tuple[str, ...]:
    """The captions in a value: a text, or a list of texts that say the same in other words.

    Raises:
        DatasetError: It is something else.
    """
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DatasetError(
            f"{place}: {str(value)[:60]!r} is no caption", "--caption-column names a column of texts"
        )
    if sum(map(len, texts)) > SIDECAR_LIMIT:
        raise DatasetError(f"{place}: captions of more than 1 MiB", "captions are shorter")
    return tuple(text.strip() for text in texts if text.strip())


def captions_of_lines(data: bytes) -> tuple[str, ...]:
    """The captions in a text, one a line; what is not UTF-8 stays recognisable as that."""
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def captions_of_json(values: Mapping[str, Any], columns: Columns, place: str) -> tuple[str, ...]:
    """The captions in a JSON object, under the first name that it has."""
    names = CAPTION_COLUMNS if columns.caption is None else (columns.caption,)
    return next((captions_in(values[name], place) for name in names if name in values), ())


def _chosen(flag: str, given: str | None, known: tuple[str, ...], there: list[str], place: str) -> str:
    if given is not None and given not in there:
        raise DatasetError(f"{flag} {given}: {place} has no such column", f"it has {_listed(there)}")
    found = given if given is not None else next((name for name in known if name in there), None)
    if found is None:
        other = " or --captions none" if flag == "--caption-column" else ""
        raise DatasetError(
            f"{place} has no column {' or '.join(known)}", f"it has {_listed(there)}: give {flag}{other}"
        )
    return found


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:20])
    return (shown or "none") + (", …" if len(names) > 20 else "")
