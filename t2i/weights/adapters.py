"""What a picture uses besides its model: LoRAs, textual inversions, a ControlNet with its picture.

From what was typed to checked files and their scales. A path is a path. A name without folders (so every tag
`<lora:NAME:SCALE>`, and what a recipe holds) is looked for beside the files that were given, in the current
folder, and in the user's own folder of them. A tag that names a file given with `--lora` says its scale for
that prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i.config import GenerateConfig
from t2i.config.loras import LoraSpec, parse_lora, read_tags
from t2i.errors import UsageError
from t2i.hashes import hash_files
from t2i.weights.controlnet_files import ControlUse, find_control
from t2i.weights.embedding_files import EmbeddingFile, inspect_embedding
from t2i.weights.lora_files import LoraFile, inspect_lora
from t2i.weights.places import find_file, find_tagged

if TYPE_CHECKING:
    from t2i.weights.loading import LoadedModel


@dataclass(frozen=True)
class LoraUse:
    """A LoRA of one picture.

    Attributes:
        file: Checked.
        scale: Of its change of the weights.
        sha256: Of the file.
    """

    file: LoraFile
    scale: float
    sha256: str

    @property
    def shown(self) -> str:
        """ "lora corgi.safetensors x0.8"."""
        return f"lora {self.file.name} x{self.scale:g}"


@dataclass(frozen=True)
class EmbeddingUse:
    """A textual inversion of one picture.

    Attributes:
        file: Checked.
        sha256: Of the file.
    """

    file: EmbeddingFile
    sha256: str

    @property
    def shown(self) -> str:
        """ "embedding corgi.safetensors"."""
        return f"embedding {self.file.name}"


@dataclass(frozen=True)
class Adapters:
    """What a picture uses besides its model, in the order given.

    Attributes:
        loras: Each file once.
        embeddings: Each file and each token once.
        control: A ControlNet and the picture that it follows.
    """

    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[EmbeddingUse, ...] = ()
    control: ControlUse | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Name → file, as `hash_files` and a verdict have it: "lora corgi.safetensors"."""
        return (
            {f"lora {use.file.name}": use.file.path for use in self.loras}
            | {use.shown: use.file.path for use in self.embeddings}
            | (self.control.files if self.control else {})
        )

    def recorded(self) -> dict[str, Any]:
        """What a recipe holds of them; empty where there are none."""
        loras = [
            {"file": use.file.name, "sha256": use.sha256, "scale": use.scale,
             "format": use.file.format_in_words}
            for use in self.loras
        ]  # fmt: skip
        embeddings = [
            {"file": use.file.name, "sha256": use.sha256, "token": use.file.token,
             "vectors": use.file.vectors, "format": use.file.format}
            for use in self.embeddings
        ]  # fmt: skip
        control = self.control.recorded() if self.control else None
        entries = {"loras": loras, "embeddings": embeddings, "control": control}
        return {name: entry for name, entry in entries.items() if entry}

    def identity(self) -> list[list[Any]]:
        """What tells them from others, by content: no names, no folders."""
        loras = [["lora", use.sha256, use.scale] for use in self.loras]
        embeddings = [["embedding", use.sha256, use.file.token] for use in self.embeddings]
        return [*loras, *embeddings, *([self.control.identity()] if self.control else [])]

    def lines(self) -> list[str]:
        """For a person, before anything is loaded."""
        loras = [
            f"{use.shown} ({use.file.format_in_words}, rank {', '.join(map(str, use.file.ranks))})"
            for use in self.loras
        ]
        embeddings = [
            f"{use.shown}: token {use.file.token!r}, {use.file.vectors} "
            + ("vector" if use.file.vectors == 1 else "vectors")
            for use in self.embeddings
        ]
        return [*loras, *embeddings, *([self.control.line()] if self.control else [])]


def find_adapters(config: GenerateConfig, prompt: str) -> Adapters:
    """Find and check the files that one prompt of a config uses. Reads headers, no tensors.

    Raises:
        UsageError: A file or a name twice, a scale for nothing, a ControlNet without its picture.
        ModelError: A file is not here, or not what it should be.
        ResourceError: The same of a control picture.
    """
    specs = [parse_lora(text) for text in config.lora]
    given = [find_file(spec.name, "loras", "--lora") for spec in specs]
    scales = dict(zip(given, (spec.scale for spec in specs), strict=True))
    if len(scales) < len(given):
        raise UsageError("--lora names a file twice", "add its scales up and name it once")
    for tag in read_tags(prompt)[1]:
        path = find_tagged(tag, given)
        scales[path] = tag.scale
    if not scales and config.lora_scale != GenerateConfig.lora_scale:
        raise UsageError(f"--lora-scale {config.lora_scale:g}: there is no LoRA", "give one with --lora")
    paths = [find_file(text, "embeddings", "--embedding") for text in config.embedding]
    for option, found in (("--lora", [*scales]), ("--embedding", paths)):
        _refuse_same([path.name for path in found], f"{option}: two files are called")
    inversions = [inspect_embedding(path) for path in paths]
    _refuse_same([file.token.lower() for file in inversions], "--embedding: two files have the token")
    loras = [inspect_lora(path) for path in scales]
    hashes = hash_files({str(path): path for path in [*scales, *paths]}) if scales or paths else {}
    return Adapters(
        tuple(
            LoraUse(file, scale * config.lora_scale, hashes[str(file.path)])
            for file, scale in zip(loras, scales.values(), strict=True)
        ),
        tuple(EmbeddingUse(file, hashes[str(file.path)]) for file in inversions),
        find_control(config),
    )


def find_all(config: GenerateConfig, prompts: Iterable[str]) -> dict[str, Adapters]:
    """`find_adapters` of several prompts; those with the same tags share what is found."""
    tags = {prompt: read_tags(prompt)[1] for prompt in prompts}
    found: dict[tuple[LoraSpec, ...], Adapters] = {}
    for prompt, key in tags.items():
        if key not in found:
            found[key] = find_adapters(config, prompt)
    return {prompt: found[key] for prompt, key in tags.items()}


def use_adapters(model: LoadedModel, adapters: Adapters, tell: Callable[[str], None]) -> None:
    """Make a model carry exactly these LoRAs, textual inversions and ControlNet, and none from before.

    What it carries already stays, so that the same once more costs nothing.

    Args:
        model: In memory; changed in place.
        adapters: From `find_adapters`.
        tell: Called with a line about each that is new.

    Raises:
        ModelError: One does not fit the model.
    """
    if adapters.embeddings or model.adapted.tokens:
        from t2i.weights.textual_inversion import use_embeddings

        use_embeddings(model, adapters.embeddings, tell)
    if adapters.loras or model.adapted.loras:
        from t2i.weights.lora_applying import use_loras

        use_loras(model, adapters.loras, tell)
    if adapters.control or model.family.control:
        from t2i.weights.controlnet_applying import use_control

        use_control(model, adapters.control, tell)


def _refuse_same(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{what} {name!r}", "leave one of them out, or rename it")
