"""Make a picture again from its recipe and compare: are the inputs the same, are the pixels?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i import images, recipes
from t2i.catalog import ASSETS
from t2i.config import GenerateConfig, flag_of
from t2i.config.loras import LoraSpec, parse_lora, read_tags, without_folders
from t2i.errors import ModelError, ResourceError, StorageError, T2IError, UsageError

if TYPE_CHECKING:
    from t2i.weights import Adapters, ModelSource

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


def verify(
    path: Path,
    model: str | None = None,
    device: str | None = None,
    lora: Sequence[str] = (),
    embedding: Sequence[str] = (),
    controlnet: str | None = None,
    control_image: str | None = None,
) -> Verdict:
    """Hash every file anew that was read, draw the picture again as it was drawn, and compare.

    Args:
        path: A picture with a recipe.
        model: Where the model is, if not where its name in the recipe leads.
        device: Another device than the recorded one.
        lora: Where LoRAs of the recipe are, if not where their names lead.
        embedding: The same of textual inversions.
        controlnet: The same of its ControlNet.
        control_image: The same of the picture that it follows.

    Raises:
        StorageError: No recipe, or a damaged picture.
        ModelError: The model or a LoRA is not here, or what is there is none.
        UsageError: A file that is not in the recipe.
    """
    from t2i import pipeline, weights

    recipe = images.read_recipe(path)
    pixels, unlike = images.read_pixels(path), images.unlike_drawn(path)
    recorded = recorded_files(recipe)
    name = model or str(recipe["model"].get("id"))
    source = find_model(name, given=model is not None)
    runtime = pipeline.recorded_runtime(recipe, device)
    config = with_places(recipes.config_of(recipe), lora, embedding, controlnet, control_image)
    config = config.replace(model=name)
    adapters = find_adapters(config)
    added = weights.hash_files(adapters.files, fresh=True)
    try:
        loaded = pipeline.load(config, runtime)
        hashes = weights.hash_files(loaded.files, fresh=True)
        picture = pipeline.redraw(recipe, loaded, runtime, hashes, adapters)
    except Exception as error:  # a changed file may break loading and drawing in any way
        files = _files_now(source, recorded)
        # Where no file is, there is another thing than a model that has changed.
        changed = compare_files(recorded, weights.hash_files(files, fresh=True) | added) if files else ()
        if not changed:
            raise
        failure = error.message if isinstance(error, T2IError) else f"{type(error).__name__}: {error}"
        return Verdict(None, changed, (), failure)
    again = images.through_file(picture.pixels, images.read_metadata(path).format)
    return Verdict(
        images.psnr(pixels, again) if again.shape == pixels.shape and not unlike else None,
        compare_files(recorded, hashes | added),
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


def recorded_files(recipe: Mapping[str, Any]) -> Any:
    """Name → SHA-256 of every file of a recipe: of its model, LoRAs ("lora NAME"), textual inversions, and of
    its ControlNet ("controlnet/config.json") with the picture that it follows ("control image").
    """
    files = recipe["model"].get("files")
    if not isinstance(files, dict) or not files:
        return files
    added = {}
    for kind, rows in (("lora", recipe.get("loras")), ("embedding", recipe.get("embeddings"))):
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict):
                added[f"{kind} {row.get('file')}"] = row.get("sha256")
    control = recipe.get("control")
    if isinstance(control, dict):
        own = control.get("files")
        added |= {f"controlnet/{file}": sha for file, sha in own.items()} if isinstance(own, dict) else {}
        added["control image"] = control.get("image_sha256")
    return {**files, **added}


def with_places(
    config: GenerateConfig,
    lora: Sequence[str] = (),
    embedding: Sequence[str] = (),
    controlnet: str | None = None,
    control_image: str | None = None,
) -> GenerateConfig:
    """The config of a recipe, with paths in place of the names of its files.

    Args:
        config: Of one picture.
        lora: Paths of files that it names, also in tags of its prompt.
        embedding: The same of textual inversions.
        controlnet: Path of the ControlNet; there is but one, so it may have another name.
        control_image: The same of the picture that it follows.

    Raises:
        UsageError: A file that it does not name, or a scale beside one.
    """
    specs = [parse_lora(text) for text in config.lora]
    tags = {tag.name for prompt in config.prompts for tag in read_tags(prompt)[1]}
    extra = []
    for text in lora:
        path = parse_lora(text).name
        same = [spec for spec in specs if _stem(spec.name) == _stem(path)]
        if path != text or not (same or _stem(path) in tags):
            raise UsageError(f"--lora {text}: the recipe has no such file", _named(config.lora, tags))
        specs = [LoraSpec(path, spec.scale) if spec in same else spec for spec in specs]
        extra += [] if same else [path]
    embeddings = list(config.embedding)
    for text in embedding:
        if not any(_stem(own) == _stem(text) for own in embeddings):
            raise UsageError(f"--embedding {text}: the recipe has no such file", _named(config.embedding, ()))
        embeddings = [text if _stem(own) == _stem(text) else own for own in embeddings]
    places = {"controlnet": controlnet, "control_image": control_image}
    single = {name: place for name, place in places.items() if place is not None}
    for name, place in single.items():
        if getattr(config, name) is None:
            raise UsageError(f"{flag_of(name)} {place}: the picture was made without a ControlNet")
    return config.replace(lora=(*map(str, specs), *extra), embedding=tuple(embeddings), **single)


def changed_adapters(recipe: Mapping[str, Any], config: GenerateConfig) -> tuple[str, ...]:
    """Names of LoRAs, textual inversions and files of control that are not those of the recipe.

    Raises:
        ModelError: One is not here.
    """
    from t2i import weights

    recorded = recorded_files(recipe)
    if not isinstance(recorded, dict):
        return ()
    now = weights.hash_files(find_adapters(config).files)
    return tuple(name for name, digest in now.items() if recorded.get(name) != digest)


def find_adapters(config: GenerateConfig) -> Adapters:
    """What one picture uses besides its model, which its recipe names without folders.

    Raises:
        ModelError: One is not here.
    """
    from t2i import weights

    try:
        return weights.find_adapters(config, "".join(config.prompts[:1]))
    except ResourceError as error:
        options = "--lora, --embedding, --controlnet or --control-image"
        hint = f"{error.hint}; say where it is with {options} PATH" if error.hint else ""
        raise type(error)(error.message, hint) from error


def _stem(path: str) -> str:
    return without_folders(path).removesuffix(".safetensors")


def _named(names: Sequence[str], tags: Iterable[str]) -> str:
    found = ", ".join([*map(without_folders, names), *tags])
    return f"it names {found}" if found else "it was made without one"


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
