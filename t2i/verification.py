"""Make a picture again from its recipe and compare: are the inputs the same, are the pixels?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i import images, recipes
from t2i.errors import ModelError, StorageError, T2IError

if TYPE_CHECKING:
    from t2i.weights import ModelSource

DIFFERENT_BELOW_DB = 20.0  # two pictures this far apart do not show the same thing


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Args:
        psnr: Of the file's pixels against the rebuilt ones, in dB; infinite when exact; None when the
            picture could not be rebuilt or has another size.
        changed: Files of the model that are not those of the recipe, each with what is wrong with it.
        machine: What else is not as it was (versions, device, threads). Explains, does not decide.
        failure: Why the picture could not be rebuilt.
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
        lines = [f"pixels: {self.pixels}" + (f" (not rebuilt: {self.failure})" if self.failure else "")]
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
        ModelError: The model is not here.
    """
    from t2i import pipeline, weights

    recipe = images.read_recipe(path)
    pixels = images.read_pixels(path)
    recorded = recipe["model"].get("files")
    name = model or str(recipe["model"].get("id"))
    source = _find(name, given=model is not None)
    try:
        runtime = pipeline.recorded_runtime(recipe, device)
        loaded = pipeline.load(recipes.config_of(recipe).replace(model=name), runtime)
    except T2IError as error:
        files = _recorded_files(source.path, recorded)
        changed = compare_files(recorded, weights.hash_files(files, fresh=True))
        if not changed:
            raise
        return Verdict(None, changed, (), error.message)
    hashes = weights.hash_files(loaded.files, fresh=True)
    picture = pipeline.redraw(recipe, loaded, runtime, hashes)
    again = images.through_file(picture.pixels, images.read_metadata(path).format)
    return Verdict(
        images.psnr(pixels, again) if again.shape == pixels.shape else None,
        compare_files(recorded, hashes),
        compare_machines(recipe["runtime"], picture.recipe["runtime"]),
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


def compare_machines(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What of device, format, threads and versions is not as recorded: "torch 2.12.0 -> 2.13.0"."""
    before, after = _flat(recorded), _flat(now)
    return tuple(
        f"{name} {before.get(name)} -> {after.get(name)}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def _flat(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime with the versions beside everything else."""
    inner = runtime.get("versions")
    return {name: value for name, value in runtime.items() if name != "versions"} | (
        inner if isinstance(inner, dict) else {}
    )


def _find(name: str, given: bool) -> ModelSource:
    from t2i.weights import resolve_model

    try:
        return resolve_model(name)
    except ModelError as error:
        hint = error.hint if given else "say where the model is with --model PATH"
        raise ModelError(error.message, hint) from error


def _recorded_files(root: Path | None, recorded: Any) -> dict[str, Path]:
    """Those recorded files that are there, for a model that cannot be loaded any more.

    The names come out of a picture, so none that leads out of the model is followed.
    """
    if root is None or not isinstance(recorded, dict):
        return {}
    folder = root if root.is_dir() else root.parent
    names = [str(name) for name in recorded]
    inside = {
        name: folder / name for name in names if ".." not in Path(name).parts and not Path(name).is_absolute()
    }
    return {name: path for name, path in inside.items() if path.is_file()}
