"""From the text a person gave for `--model` to a folder or a file on this machine.

Importing this asks for nothing heavy; only a download imports huggingface_hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i.catalog import MODELS, Defaults, KnownModel, find_model, find_repo, nearest_models
from t2i.environment import is_offline
from t2i.errors import ModelError
from t2i.weights.safety import SAFETENSORS_ONLY, refuse_pickle_name

if TYPE_CHECKING:
    from t2i.weights.inspection import Inspection

HUB_ID = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}(@[A-Za-z0-9][A-Za-z0-9_./-]{0,99})?"
)
COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2", "scheduler", "tokenizer", "tokenizer_2")
PLAIN_FILES = {
    "config.json", "scheduler_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "merges.txt", "special_tokens_map.json", "added_tokens.json", "words.json",
}  # fmt: skip
WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
WEIGHTS_FP16 = re.compile(
    r"(diffusion_pytorch_model|model)(\.fp16)?(-\d{5}-of-\d{5})?(\.fp16)?\.safetensors(\.index(\.fp16)?\.json)?"
)


@dataclass(frozen=True)
class ModelSource:
    """A model that was named, before anything of it is read.

    Attributes:
        kind: "packaged", "folder", "file" or "hub".
        id: What recipes call it: alias, base name, or Hub id with its commit once that is known.
        path: Folder or file; None for a Hub model that is not fetched yet.
        repo: Hub id, for kind "hub".
        revision: Branch, tag or commit asked for, for kind "hub".
        known: Its catalog row, if it has one.
        offline: The network must not be asked.
    """

    kind: str
    id: str
    path: Path | None = None
    repo: str | None = None
    revision: str | None = None
    known: KnownModel | None = None
    offline: bool = False

    @cached_property
    def inspection(self) -> Inspection:
        """What its files say, without their weights; a Hub model is downloaded first.

        Raises:
            ModelError: Missing, unsafe, damaged, or of a kind that this version does not run.
        """
        from t2i.weights.inspection import inspect_model

        return inspect_model(self)

    @property
    def shown(self) -> str:
        """The model as the person called it: a path of theirs, a Hub id, or the alias of a packaged one."""
        return str(self.path) if self.kind in ("folder", "file") else self.repo or self.id

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Put the model in front of what is wrong with it."""
        try:
            yield
        except ModelError as error:
            raise error.named(self.shown) from error.__cause__

    @property
    def family(self) -> str:
        """Name of its family; for a model outside the catalog its files are read."""
        return self.known.family if self.known is not None else self.inspection.family

    @property
    def defaults(self) -> Defaults:
        """Steps, guidance, scheduler and size when nothing is said.

        A packaged or local model says it itself (`t2i.json`); for a Hub model of the catalog its row does.
        """
        if self.kind == "hub" and self.known is not None:
            return self.known.defaults
        return self.inspection.defaults

    @property
    def files(self) -> Mapping[str, Path]:
        """Name → every file that loading it reads."""
        return self.inspection.files


def resolve_model(name: str, offline: bool = False) -> ModelSource:
    """Find out what `--model NAME` means; downloads nothing.

    An existing folder or file wins over a Hub id of the same spelling, an alias over both. What would lie in
    a folder that is here is a path, unless the catalog knows it or it names a revision.

    Args:
        name: Alias, Hub id (`owner/name` or `owner/name@revision`), folder, or `.safetensors` file.
        offline: The network must not be asked later.

    Raises:
        ModelError: No such model, or a kind of file that is never opened.
    """
    offline = offline or is_offline()
    text = str(name).strip()
    if not text or "\0" in text:
        raise ModelError("no model was named", f"known: {', '.join(MODELS)}")
    row = find_model(text)
    if row is not None:
        if row.repo is None:
            if row.folder is None or not row.folder.is_dir():
                raise ModelError(f"{row.alias} is missing from this installation", "install t2i again")
            return ModelSource("packaged", row.alias, row.folder, known=row, offline=offline)
        return ModelSource("hub", row.repo, repo=row.repo, known=row, offline=offline)
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return ModelSource("folder", path.resolve().name, path, offline=offline)
        if path.is_file():
            refuse_pickle_name(path)
            return ModelSource("file", path.name, path, offline=offline)
    except OSError as error:
        raise ModelError(f"the model {text[:200]!r} cannot be read: {error.strerror}") from error
    if path.exists():
        raise ModelError(f"{path} is neither a folder nor a plain file")
    if re.match(r"[a-z]+://", text):
        raise ModelError(f"{text}: models are not loaded from addresses", "download it and give the file")
    repo, _, revision = text.partition("@")
    suffixes = (".safetensors", ".ckpt", ".bin", ".pt", ".pth")
    looks_like_path = text.startswith((".", "/", "~", "\\")) or path.suffix.lower() in suffixes
    in_a_folder = not revision and len(path.parts) > 1 and Path(path.parts[0]).is_dir()
    may_be_path = looks_like_path or (in_a_folder and find_repo(repo) is None)
    is_hub_id = HUB_ID.fullmatch(text) is not None
    if is_hub_id and not may_be_path:
        return ModelSource("hub", text, None, repo, revision or None, find_repo(repo), offline)
    if may_be_path:
        hint = "check the spelling of the path; a model of the Hub is named owner/name"
        if is_hub_id and not looks_like_path:
            hint += f", and if you mean that one: {text}@main"
        raise ModelError(f"there is no model at {text}: no such folder or file", hint)
    near = nearest_models(text)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(MODELS)}."
    raise ModelError(f"there is no model {text!r}", f"{hint} A Hub id has the form owner/name")


def fetch_model(source: ModelSource, download: bool = True) -> ModelSource:
    """Make sure the model is on this machine; a Hub model is downloaded, without pickles and code.

    A branch is resolved to its commit once, and only that commit is read.

    Args:
        source: From `resolve_model`.
        download: False only asks whether the Hub has it, and refuses what a download would.

    Returns:
        The source with its `path`, and for the Hub with the commit in its `id`; as it was where nothing was
        downloaded.

    Raises:
        ModelError: Not in the cache while offline, not on the Hub, not a Diffusers model, pickles only.
    """
    if source.path is not None or source.repo is None:
        return source
    if source.offline:
        folder: Path | None = _cached(source.repo, source.revision)
        if folder is None:
            raise ModelError(
                f"{source.repo} is not on this machine, and the network is not to be asked",
                "run the command once without --offline, or use --model pocket, which needs no download",
            )
        return _located(source, folder)
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(source.repo, revision=source.revision)
        names = choose_files([item.rfilename for item in info.siblings or ()], source.repo)
        if not download:
            return source
        downloaded = snapshot_download(source.repo, revision=info.sha, allow_patterns=names)
    except GatedRepoError as error:
        raise ModelError(
            f"{source.repo} asks you to accept its terms first",
            f"open huggingface.co/{source.repo}, accept, and log in with `hf auth login`",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{source.repo} has no revision {source.revision!r}") from error
    except RepositoryNotFoundError as error:
        near = nearest_models(source.repo.rpartition("/")[2])
        hint = (
            f"did you mean {', '.join(near)}?" if near else "check the spelling, or log in if it is private"
        )
        here = "" if source.known is not None else ", nor a folder of that name here"
        raise ModelError(f"there is no model {source.repo} on the Hub{here}", hint) from error
    except ModelError:
        raise
    except Exception as error:  # the Hub's client raises many kinds for a network that does not answer
        cached = _cached(source.repo, source.revision)
        if cached is not None:
            return _located(source, cached)
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{source.repo} could not be downloaded: {first[:200]}",
            "check the network, or use --model pocket, which needs no download",
        ) from error
    return _located(source, Path(str(downloaded)))


def choose_files(names: Iterable[str], repo: str) -> list[str]:
    """The files of a Hub repository that are needed: configs, tokenizers, safetensors; fp16 if only that.

    Raises:
        ModelError: Not a Diffusers folder, or a part of it has no safetensors.
    """
    present = set(names)
    if "model_index.json" not in present:
        raise ModelError(
            f"{repo} is not a Diffusers model (no model_index.json)",
            "if it holds a single .safetensors file, download that and give its path",
        )
    chosen = {"model_index.json"} | ({"t2i.json"} & present)
    for component in COMPONENTS:
        inside = {name.removeprefix(component + "/") for name in present if name.startswith(component + "/")}
        inside = {name for name in inside if "/" not in name}
        chosen |= {f"{component}/{name}" for name in inside & PLAIN_FILES}
        weights = {name for name in inside if WEIGHTS.fullmatch(name)}
        weights = weights or {name for name in inside if WEIGHTS_FP16.fullmatch(name)}
        if not weights and any(name.endswith((".bin", ".pt", ".ckpt")) for name in inside):
            raise ModelError(f"{repo} has its {component} as pickled data only", SAFETENSORS_ONLY)
        chosen |= {f"{component}/{name}" for name in weights}
    return sorted(chosen)


def _cached(repo: str, revision: str | None) -> Path | None:
    """The newest copy in the Hub's cache on this machine, or None."""
    from huggingface_hub import snapshot_download

    try:
        folder: Any = snapshot_download(repo, revision=revision, local_files_only=True)
    except Exception:  # several kinds, all of which mean that it is not there
        return None
    return Path(folder) if os.path.isfile(os.path.join(folder, "model_index.json")) else None


def _located(source: ModelSource, folder: Path) -> ModelSource:
    """`source` at a folder of the Hub's cache, whose name is the commit."""
    commit = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else source.revision
    return replace(source, path=folder, id=f"{source.repo}@{commit}" if commit else str(source.repo))
