"""Pictures of a run against those that a golden file expects.

Equal bytes are promised for equal versions, device, number format, threads and batch shape on one kind of
processor. Where all of these are as they were, other pixels are a difference; else a PSNR decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from t2i import images, recipes
from t2i.batch.golden import Expected, Golden, key_of, runtime_of
from t2i.batch.plan import BatchJob
from t2i.errors import StorageError


@dataclass(frozen=True)
class Verdict:
    """One picture against the expected one.

    Attributes:
        kind: "equal"; "close" (another machine, PSNR high enough); "different"; "unknown" (no picture of the
            golden file).
        text: Why, one line.
        psnr: In dB; None where nothing could be compared, or all is equal.
        reference: The expected picture, where there is a difference to show.
    """

    kind: str
    text: str
    psnr: float | None = None
    reference: Path | None = None

    @property
    def holds(self) -> bool:
        """Whether the picture is as expected."""
        return self.kind in ("equal", "close")


@dataclass(frozen=True)
class Comparison:
    """All pictures of a run against a golden file.

    Attributes:
        golden: Name of the file.
        verdicts: By job.
        missing: Expected, and not asked for.
    """

    golden: str
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    missing: Sequence[Expected] = ()

    @property
    def differences(self) -> int:
        """How many pictures are not as expected."""
        return sum(not verdict.holds for verdict in self.verdicts.values()) + len(self.missing)


def compare(
    golden: Golden, done: Sequence[BatchJob], every: Sequence[BatchJob], folder: Path, min_psnr: float | None
) -> Comparison:
    """Compare the files of pictures with the expected ones.

    Args:
        golden: What is expected.
        done: The pictures to compare.
        every: All that the prompt file asks for, also what failed or is another shard's.
        folder: Of the pictures.
        min_psnr: Instead of the golden file's.

    Raises:
        StorageError: A picture of `done` cannot be read.
    """
    verdicts = {}
    for job in done:
        expected = golden.pictures.get(key_of(job))
        if expected is None:
            verdicts[job.id] = Verdict("unknown", f"{golden.path.name} has no such picture")
        else:
            least = golden.min_psnr if min_psnr is None else min_psnr
            verdicts[job.id] = _judge(folder / job.file, expected, least)
    asked = {key_of(job) for job in every}
    missing = [expected for key, expected in golden.pictures.items() if key not in asked]
    return Comparison(golden.path.name, verdicts, missing)


def _judge(path: Path, expected: Expected, min_psnr: float) -> Verdict:
    pixels = images.read_pixels(path)
    if images.pixels_sha256(pixels) == expected.pixels_sha256:
        return Verdict("equal", "equal")
    try:
        reference = images.read_pixels(expected.reference)
    except StorageError as error:
        return Verdict("different", f"other pixels, and {error.message}")
    if images.pixels_sha256(reference) != expected.pixels_sha256 or reference.shape != pixels.shape:
        return Verdict("different", f"other pixels, and {expected.reference} is not the expected picture")
    psnr = images.psnr(reference, pixels)
    recipe = images.read_metadata(path).recipe
    changed = (
        recipes.compare_runtimes(expected.runtime, runtime_of(recipe))
        if recipe is not None
        else ("how it was computed is not known",)
    )
    if not changed:
        text = f"PSNR {psnr:.1f} dB, with equal versions on an equal machine"
    elif psnr >= min_psnr:
        return Verdict("close", f"PSNR {psnr:.1f} dB, enough on another machine: {', '.join(changed)}", psnr)
    else:
        text = f"PSNR {psnr:.1f} dB, less than {min_psnr:g}; {', '.join(changed)}"
    return Verdict("different", text, psnr, expected.reference)
