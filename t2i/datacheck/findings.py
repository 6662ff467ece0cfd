"""What can be found in a dataset, as a table of kinds, and the report that holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from t2i.texts import printable

PROBLEMS = {
    "empty": "files of zero bytes",
    "truncated": "files whose end is missing",
    "unreadable": "files that cannot be read or decoded",
    "damaged": "PNG files with a wrong checksum",
    "format": "pictures in formats that are not read",
    "too-large": "pictures over 64 megapixels",
    "tiny": "pictures smaller than the training resolution",
    "extreme-aspect": "pictures more than 3 times as long as wide, or as wide as long",
    "duplicate": "pictures with the same pixels as another",
    "near-duplicate": "pictures that look like another",
    "leak": "pictures to validate on that are, or look like, one to train on",
    "no-caption": "pictures without a caption among others that have one",
    "long-caption": "captions longer than the text encoder's window",
    "orphan-caption": "captions of pictures that are not there",
    "missing": "pictures that are listed and not there",
    "unlisted": "pictures that metadata does not list, so that nothing reads them",
    "bad-line": "lines of metadata that cannot be read",
    "not-utf8": "captions that are not UTF-8",
    "outside": "files outside of the folder, by name or link",
    "name": "names that some systems or programs cannot have",
}
NOTES = {
    "extension": "files whose suffix is that of another format",
    "rotated": "pictures turned by EXIF",
    "16-bit": "pictures with 16 bits a channel",
    "cmyk": "pictures in CMYK",
    "alpha": "pictures with transparent parts",
    "palette": "pictures with a palette",
    "animated": "pictures with several frames: the first is used",
    "profile": "pictures with a colour profile other than sRGB",
    "listed-twice": "pictures with several lines of metadata",
    "duplicate-caption": "captions of several pictures",
    "uncaptioned": "no captions at all: a model without prompts",
}
KINDS = {**PROBLEMS, **NOTES}
UNUSABLE = {"empty", "truncated", "unreadable", "damaged", "format", "too-large"}


def one_line(text: str) -> str:
    """Any text, also a hostile name, as part of one line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: A key of `KINDS`.
        place: A file, relative to the folder, or a line of one; empty if it is about all of them.
        detail: In words.
    """

    kind: str
    place: str
    detail: str

    @property
    def problem(self) -> bool:
        """Whether it should be repaired, or is only good to know."""
        return self.kind in PROBLEMS


@dataclass(frozen=True)
class Report:
    """A dataset and everything that was found in it.

    Attributes:
        folder: As given.
        summary: What was understood: pictures, captions, layout.
        pictures: How many there are.
        findings: In the order of `KINDS`, then of places.
        resolution: That pictures were measured against.
        buckets: "width x height" → pictures that would be trained in that size.
        fixed: What `--fix` wrote, if anything.
    """

    folder: str
    summary: str
    pictures: int
    findings: tuple[Finding, ...]
    resolution: int
    buckets: Mapping[str, int] = field(default_factory=dict)
    fixed: Mapping[str, Any] | None = None

    @property
    def clean(self) -> bool:
        """Whether there is no problem."""
        return not any(finding.problem for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        counts = Counter(finding.kind for finding in self.findings)
        listed = [{**asdict(finding), "problem": finding.problem} for finding in self.findings]
        return {**asdict(self), "clean": self.clean, "counts": dict(counts), "findings": listed}

    def lines(self, show: int) -> Iterator[str]:
        """The report for a person.

        Args:
            show: Lines for each kind.
        """
        for kind, words in KINDS.items():
            found = [finding for finding in self.findings if finding.kind == kind]
            if not found:
                continue
            yield f"{'problem' if kind in PROBLEMS else 'note':<8}{kind:<18}{len(found):>6}  {words}"
            shown = [(one_line(finding.place), one_line(finding.detail)) for finding in found[:show]]
            width = min(48, max(len(place) for place, _ in shown))
            for place, detail in shown:
                yield f"        {place:<{width}}  {detail}".rstrip()
            if len(found) > show:
                yield f"        … and {len(found) - show} more"
        if self.buckets:
            sizes = ", ".join(f"{size} {count}" for size, count in self.buckets.items())
            yield f"buckets at {self.resolution}: {sizes}"
        if self.fixed is not None:
            yield f"fixed    {self.fixed['written']} pictures in {self.fixed['folder']}"
            for one in self.fixed["left_out"]:
                yield f"        left out  {one_line(one['file'])}  {one_line(one['why'])}"
        problems = sum(finding.problem for finding in self.findings)
        places = len({finding.place for finding in self.findings if finding.problem})
        told = f"{problems} problems in {places} places" if problems else "no problems"
        yield f"{self.summary}: {told}"
