"""The run folder: what in it is this training's own, what stands in the way, which stages are done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i import durable
from t2i.checkpoints import list_checkpoints, step_of
from t2i.config import TrainConfig
from t2i.errors import ModelError, StorageError, UsageError
from t2i.methods import METHODS, SCRATCH
from t2i.naming import check_free
from t2i.training.resuming import DATA, changed_settings, read_handoff

CHECKPOINTS, SETTINGS, SETTINGS_FILE, DONE = "checkpoints", "config.json", "config.toml", "done.json"
PARTS, BEST, PAGE = "parts", "best", "run.html"
OF_A_STAGE = (
    CHECKPOINTS, SETTINGS, SETTINGS_FILE, DONE, "metrics.jsonl", "samples", "journal.json", "loss.png",
    "best.safetensors", "memorisation.json", "memorisation.png", "tensorboard", "wandb",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """What a training has noted in the folder of a stage.

    Attributes:
        settings: Of its last run, as `TrainConfig.to_dict`.
        conditions: Of its newest checkpoint, as `conditions_of`; empty if there is none.
    """

    settings: Mapping[str, Any]
    conditions: Mapping[str, str]


def stages_of(config: TrainConfig) -> tuple[str, ...]:
    """The stages that a run goes through, in order."""
    return SCRATCH if config.method == "scratch" else (config.method,)


def check_folder(config: TrainConfig) -> None:
    """Refuse a run that would fail later or replace what is not its own, before anything is written.

    Its own is what stands beside the config.json or checkpoints of a training, while that is resumed.

    Raises:
        UsageError: OUTPUT is a part of the dataset.
        StorageError: OUTPUT or the handoff cannot be written, or something is there already.
        ModelError: Nothing to resume, or a model of other settings.
    """
    output = Path(config.output)
    _check_writable(output, "--output")
    stages = stages_of(config)
    records = {stage: record_of(output / stage) for stage in stages}
    if config.resume == "latest" and not any(_begun(output / stage) for stage in stages):
        raise ModelError(
            f"no checkpoint of {' or '.join(stages)} in {output}",
            "check --output, or start the run without --resume",
        )
    _check_not_in_dataset(config)
    if not config.overwrite:
        _check_page(output)
        for stage in stages:
            _check_stage(output, stage, records[stage], goes_on(config, stage))
            if config.validation_split > 0 and not goes_on(config, stage):
                _check_absent([output / BEST / name for name in METHODS[stage].results])
            _check_not_gone_back(config, stage)
    for stage, record in records.items():
        if record is not None and config.resume == "latest" and _begun(output / stage):
            changed_settings(record.settings, config.to_dict(), stage, f"{stage} in {output}")
    if config.save_handoff is not None:
        own = config.resume is not None and any(
            record is not None and record.settings.get("save_handoff") == config.save_handoff
            for record in records.values()
        )
        _check_handoff(Path(config.save_handoff), config.overwrite or own)
    if config.handoff is not None:
        read_handoff(Path(config.handoff), config, config.method)


def record_of(folder: Path) -> Record | None:
    """What a training has noted in the folder of a stage; None where no training was."""
    states = (_read(path / "state.json") for path in reversed(list_checkpoints(folder / CHECKPOINTS)))
    state = next((state for state in states if state), {})
    settings = _read(folder / SETTINGS)
    if "checkpointing_steps" not in settings:  # another program's config.json
        settings = state.get("config", {})
    return Record(settings, state.get("conditions", {})) if settings else None


def goes_on(config: TrainConfig, stage: str) -> bool:
    """Whether the run resumes what is in the folder of the stage, not another run's checkpoint or nothing."""
    if config.resume is None or config.resume == "latest":
        return config.resume is not None
    return Path(config.resume).resolve().parent == (Path(config.output) / stage / CHECKPOINTS).resolve()


def clear_stage(folder: Path) -> None:
    """Remove what an earlier training left in the folder of a stage that starts anew."""
    for name in OF_A_STAGE:
        durable.remove(folder / name)


def clear_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of a stage after the one from which it goes on: they are of another course."""
    for path in _after(folder, step):
        durable.remove(path)
        durable.remove(folder / DONE)


def mark_done(folder: Path, step: int, exact: bool | None) -> None:
    """Note that a stage is trained to its end."""
    durable.write_json(folder / DONE, {"step": step, "exact": exact})


def is_done(folder: Path) -> bool:
    """Whether a stage was once trained to its end."""
    return (folder / DONE).is_file()


def why_done(config: TrainConfig, stage: str, total: int, dataset: str) -> str:
    """Why a resumed `scratch` run need not train a stage, in words; empty if it must.

    Args:
        config: The run.
        stage: One of its stages.
        total: Steps that the run asks for.
        dataset: `dataset_digest` of its data.
    """
    folder = Path(config.output) / stage
    step = _read(folder / DONE).get("step", -1)
    if config.method != "scratch" or config.resume is None or step < total:
        return ""
    record = record_of(folder)
    differ: list[str] = []
    if record is not None:
        differ = changed_settings(record.settings, config.to_dict(), stage, f"{stage} in {config.output}")
        differ = [name for name in differ if name != "max_train_steps" or step != total]
        if record.conditions.get(DATA, dataset) != dataset:
            differ.append(DATA)
    without = f"; changed since, and not applied to it: {', '.join(differ)}" if differ else ""
    return f"already trained, {step} steps{without}"


def _begun(folder: Path) -> bool:
    return bool(list_checkpoints(folder / CHECKPOINTS)) or is_done(folder)


def _check_stage(output: Path, stage: str, record: Record | None, resumes: bool) -> None:
    """Refuse to replace what a stage would write, unless it goes on with what it wrote itself."""
    folder = output / stage
    if record is not None and not resumes and _begun(folder):
        names = [path.name for path in list_checkpoints(folder / CHECKPOINTS)]
        raise StorageError(
            f"{folder} already holds a run ({(names or [DONE])[-1]})",
            "continue it with --resume latest, choose another --output, or pass --overwrite to train anew",
        )
    in_the_way: list[Path] = []
    if record is None:
        in_the_way += [folder / name for name in OF_A_STAGE]
    if record is None or not resumes:
        in_the_way += [output / name for name in METHODS[stage].results]
    _check_absent(in_the_way)


def _check_page(output: Path) -> None:
    """Refuse to replace a page where no stage of any run has been."""
    if not any(record_of(output / stage) for stage in METHODS):
        _check_absent([output / PAGE])


def _check_absent(paths: Iterable[Path]) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise StorageError(
                f"{path} already exists", "choose another --output, or pass --overwrite to replace it"
            )


def _after(folder: Path, step: int) -> list[Path]:
    return [path for path in list_checkpoints(folder / CHECKPOINTS) if step_of(path) > step]


def _check_not_gone_back(config: TrainConfig, stage: str) -> None:
    """Refuse to go on from a checkpoint before the newest, which `--resume latest` would take later."""
    if config.resume is None or config.resume == "latest" or not goes_on(config, stage):
        return
    chosen = Path(config.resume)
    if chosen not in list_checkpoints(chosen.parent):
        return  # said when it is loaded
    later = _after(Path(config.output) / stage, step_of(chosen))
    if later:
        raise StorageError(
            f"{later[-1]} is later than {chosen.name}",
            "go on from it with --resume latest, choose another --output, or pass --overwrite to remove it",
        )


def _check_not_in_dataset(config: TrainConfig) -> None:
    """Refuse an OUTPUT whose sample sheets would be pictures of the dataset in the next run."""
    if Path(config.output).resolve().is_relative_to(Path(config.dataset).resolve()):
        where = f"--output {config.output} is in the dataset {config.dataset}"
        raise UsageError(f"{where}, which would grow by its sample sheets", "choose one outside of it")


def _check_handoff(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise StorageError(f"--save-handoff {path}: a folder", f"name a file, as {path / 'run.safetensors'}")
    check_free(path, overwrite)
    _check_writable(path.parent, "--save-handoff")


def _check_writable(folder: Path, flag: str) -> None:
    """Refuse a folder that cannot be written to or, where it is missing, be made."""
    place = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not place.is_dir():
        raise StorageError(f"{flag}: {place} is not a folder", f"choose another {flag}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"{flag}: no permission to write in {place}", f"choose another {flag}")


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
