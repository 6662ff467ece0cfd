"""Make a picture again from its recipe and compare: are the inputs the same, are the pixels?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i import images, recipes
from t2i.catalog import ASSETS
from t2i.errors import ModelError, StorageError, T2IError

if TYPE_CHECKING:
    from t2i.weights import ModelSource

DIFFERENT_BELOW_DB = 20.0  # two pictures this far apart do not show the same thing


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Args:
        psnr: Of the file's pixels against the rebuilt ones, in dB; infinite when exact; None when the
            two could not be compared or differ in size.
        changed: Files of the model that are not those of the recipe, each with what is wrong with it.
        machine: What else is not as it was (versions, device, threads). Explains, does not decide.
        failure: Why the two could not be compared: none could be rebuilt, or the file shows more than RGB.
    """

    psnr: float | None
    changed: tuple[str, ...]
    machine: tuple[str, ...]
    failure: str = ""

    @property
    def holds(self) -> bool:
        """Whether pixels and inputs are both the same."""
        return self.pixels == "exact" and not self.changed

    @property
    def pixels(self) -> str:
        """ "exact", "PSNR 41.2 dB" or "different"."""
        if self.psnr is None or self.psnr < DIFFERENT_BELOW_DB:
            return "different"
        return "exact" if math.isinf(self.psnr) else f"PSNR {self.psnr:.1f} dB"

    def lines(self) -> list[str]:
        """The verdict for a person."""
        lines = [f"pixels: {self.pixels}" + (f" (not compared: {self.failure})" if self.failure else "")]
        lines.append("inputs: " + (f"changed ({', '.join(self.changed)})" if self.changed else "same"))
        return lines + ([f"machine: changed ({', '.join(self.machine)})"] if self.machine else [])


def verify(path: Path, model: str | None = None, device: str | None = None) -> Verdict:
    """Hash every file of the model anew, draw the picture again as it was drawn, and compare.

    Args:
        path: A picture with a recipe.
        model: Where the model is, if not where its name in the recipe leads.
        device: Another device than the recorded one.

    Raises:
        StorageError: No recipe, or a damaged picture.
        ModelError: The model is not here, or what is there is none.
    """
    from t2i import pipeline, weights

    recipe = images.read_recipe(path)
    pixels, unlike = images.read_pixels(path), images.unlike_drawn(path)
    recorded = recipe["model"].get("files")
    name = model or str(recipe["model"].get("id"))
    source = find_model(name, given=model is not None)
    runtime = pipeline.recorded_runtime(recipe, device)
    try:
        loaded = pipeline.load(recipes.config_of(recipe).replace(model=name), runtime)
        hashes = weights.hash_files(loaded.files, fresh=True)
        picture = pipeline.redraw(recipe, loaded, runtime, hashes)
    except Exception as error:  # a changed file may break loading and drawing in any way
        files = _files_now(source, recorded)
        # Where no file is, there is another thing than a model that has changed.
        changed = compare_files(recorded, weights.hash_files(files, fresh=True)) if files else ()
        if not changed:
            raise
        failure = error.message if isinstance(error, T2IError) else f"{type(error).__name__}: {error}"
        return Verdict(None, changed, (), failure)
    again = images.through_file(picture.pixels, images.read_metadata(path).format)
    return Verdict(
        images.psnr(pixels, again) if again.shape == pixels.shape and not unlike else None,
        compare_files(recorded, hashes),
        recipes.compare_runtimes(recipe["runtime"], picture.recipe["runtime"]),
        unlike,
    )


def compare_files(recorded: Any, now: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the files that differ, "(missing)" or "(new)" behind those that only one side has.

    Raises:
        StorageError: The recipe holds no hashes.
    """
    if not isinstance(recorded, dict) or not recorded:
        raise StorageError("the recipe names no files of the model")
    notes = {name: " (missing)" for name in {*recorded} - {*now}} | {
        name: " (new)" for name in {*now} - {*recorded}
    }
    names = sorted({*recorded, *now})
    return tuple(name + notes.get(name, "") for name in names if recorded.get(name) != now.get(name))


def find_model(name: str, given: bool) -> ModelSource:
    """The model of a recipe, which names it but does not say where it is.

    Args:
        name: Out of the recipe, or from the person.
        given: It is from the person.

    Raises:
        ModelError: It is not here.
    """
    from t2i.weights import resolve_model

    try:
        return resolve_model(name)
    except ModelError as error:
        hint = error.hint if given else "say where the model is with --model PATH"
        raise ModelError(error.message, hint) from error


def _files_now(source: ModelSource, recorded: Any) -> Mapping[str, Path] | None:
    """The files of a model that could not be loaded; None if it is not on this machine at all.

    Where not even its configs can be read, those recorded files that are there. Their names come out of a
    picture, so none that leads out of the model is followed.
    """
    from t2i.weights import fetch_model

    try:
        source = fetch_model(source)
    except ModelError:
        return None
    try:
        return source.inspection.files
    except T2IError:
        pass
    assert source.path is not None
    # A single file's configs and vocabulary are t2i's own.
    roots = [source.path] if source.path.is_dir() else [source.path.parent, ASSETS]
    names = [str(name) for name in recorded] if isinstance(recorded, dict) else []
    inside = [name for name in names if ".." not in Path(name).parts and not Path(name).is_absolute()]
    return {name: root / name for root in reversed(roots) for name in inside if (root / name).is_file()}
