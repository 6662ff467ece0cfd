"""The run folder: nobody's files are replaced, a refused run leaves nothing, a resumed one knows its own."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_run import small_config

from t2i import checkpoints
from t2i.checkpoints import Handoff, list_checkpoints, save_handoff, step_of
from t2i.config import TrainConfig
from t2i.errors import DatasetError, ModelError, StorageError, T2IError
from t2i.training import train
from t2i.training.folder import check_folder, record_of


def config(output: Path, **changes: Any) -> TrainConfig:
    return small_config(Path("unused"), output, **changes)


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def trained(output: Path, *stages: str, done: bool = True, **changes: Any) -> Path:
    """What a training leaves behind, without the weights."""
    for stage in stages:
        folder = output / stage
        (folder / "checkpoints" / "checkpoint-00000006").mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config(output, **changes).to_dict()))
        if done:
            (folder / "done.json").write_text('{"step": 6, "exact": true}')
    return output


FOREIGN = {
    "vae": ("parts/vae/config.json", "vae/metrics.jsonl", "vae/config.json", "vae/samples/mine.png"),
    "clip": ("parts/tokenizer/vocab.json", "parts/text_encoder/x", "clip/checkpoints/x"),
    "unet": ("model/model_index.json", "model", "unet/config.json"),
    "scratch": ("model/model_index.json", "parts/vae/x"),
}


@pytest.mark.parametrize(("method", "name"), [(key, name) for key in FOREIGN for name in FOREIGN[key]])
@pytest.mark.parametrize("resume", [None, "elsewhere/checkpoint-00000001"])
def test_what_no_training_made_is_not_replaced(
    tmp_path: Path, method: str, name: str, resume: str | None
) -> None:
    if method == "scratch":
        resume = None  # a checkpoint is of one stage
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"_class_name": "UNet2DConditionModel"}')
    before = listing(tmp_path)
    with pytest.raises(StorageError, match="already exists") as caught:
        next(train(config(tmp_path, method=method, resume=resume)))
    named = caught.value.message.removesuffix(" already exists")
    assert path == Path(named) or Path(named) in path.parents
    assert "--overwrite" in caught.value.hint
    assert listing(tmp_path) == before, "not even a lock file"
    check_folder(config(tmp_path, method=method, resume=resume, overwrite=True))


def test_other_things_in_the_folder_are_not_in_the_way(tmp_path: Path) -> None:
    for name in ("data/a.png", "notes.txt", "cache/pixels-1.npy", "parts/vae/config.json", "unet/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    check_folder(config(tmp_path, method="unet"))
    check_folder(config(tmp_path, method="clip"))


def test_a_run_may_replace_its_own_results_when_resumed_only(tmp_path: Path) -> None:
    trained(tmp_path, "unet", method="unet")
    (tmp_path / "model").mkdir()
    check_folder(config(tmp_path, method="unet", resume="latest"))
    check_folder(config(tmp_path, method="unet", overwrite=True))
    with pytest.raises(StorageError, match=r"unet already holds a run \(checkpoint-00000006\)"):
        check_folder(config(tmp_path, method="unet"))
    shutil.rmtree(tmp_path / "unet" / "checkpoints")
    with pytest.raises(StorageError, match=r"unet already holds a run \(done.json\)"):
        check_folder(config(tmp_path, method="unet"))
    (tmp_path / "unet" / "done.json").unlink()
    with pytest.raises(StorageError, match="model already exists"):
        check_folder(config(tmp_path, method="unet"))
    (tmp_path / "model").rmdir()
    check_folder(config(tmp_path, method="unet"))  # killed before its first checkpoint


def test_checkpoints_alone_tell_that_a_folder_is_a_training_s(tmp_path: Path) -> None:
    folder = tmp_path / "vae" / "checkpoints" / "checkpoint-00000003"
    folder.mkdir(parents=True)
    assert record_of(tmp_path / "vae") is None
    (folder / "state.json").write_text(json.dumps({"config": {"batch_size": 4}}))
    record = record_of(tmp_path / "vae")
    assert record is not None and record.settings == {"batch_size": 4} and record.conditions == {}


def test_the_handoff_file_is_checked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, file = tmp_path / "run", tmp_path / "carry.safetensors"
    file.write_text("somebody's")
    with pytest.raises(StorageError, match=r"carry\.safetensors already exists"):
        check_folder(config(output, method="vae", save_handoff=str(file)))
    check_folder(config(output, method="vae", save_handoff=str(file), overwrite=True))
    trained(output, "vae", method="vae", save_handoff=str(file))
    check_folder(config(output, method="vae", save_handoff=str(file), resume="latest"))
    (tmp_path / "other.safetensors").write_text("somebody's")
    with pytest.raises(StorageError, match="already exists"):
        check_folder(
            config(output, method="vae", save_handoff=str(tmp_path / "other.safetensors"), resume="latest")
        )
    with pytest.raises(StorageError, match="a folder"):
        check_folder(config(tmp_path / "new", method="vae", save_handoff=str(tmp_path)))
    with pytest.raises(StorageError, match=r"carry\.safetensors is not a folder"):
        inside = str(file / "x.safetensors")
        check_folder(config(tmp_path / "new", method="vae", save_handoff=inside, overwrite=True))
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(StorageError, match=f"--save-handoff: no permission to write in {tmp_path}$"):
        new = str(tmp_path / "a" / "b.safetensors")
        check_folder(config(output, method="vae", save_handoff=new, overwrite=True))


def test_a_file_as_output_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError, match=r"--output: .*file is not a folder") as caught:
            next(train(config(output)))
        assert caught.value.hint == "choose another --output"


def test_nothing_to_resume_is_told_and_no_folder_is_made(tmp_path: Path) -> None:
    for method, missing in (("scratch", "vae or clip or unet"), ("vae", "vae")):
        with pytest.raises(ModelError, match=f"no checkpoint of {missing} in .*tpyo"):
            next(train(config(tmp_path / "tpyo", method=method, resume="latest")))
    assert not list(tmp_path.iterdir())
    trained(tmp_path / "run", "vae")
    check_folder(config(tmp_path / "run", resume="latest"))  # the later stages have not begun
    with pytest.raises(ModelError, match="no checkpoint of unet"):
        check_folder(config(tmp_path / "run", method="unet", resume="latest"))


@pytest.mark.parametrize("done", [True, False])
def test_another_resolution_is_refused_before_the_work(tmp_path: Path, done: bool) -> None:
    trained(tmp_path, "vae", done=done)
    told = "vae in .* was made with resolution 32, this run asks for 64"
    with pytest.raises(ModelError, match=told) as caught:
        check_folder(config(tmp_path, resume="latest", resolution=64))
    assert "--resolution" in caught.value.hint and "another --output" in caught.value.hint
    check_folder(config(tmp_path, resume="latest", unet_heads=1))  # the vae stage never looks at it


def test_a_refused_run_leaves_no_folder_and_takes_none(tmp_path: Path) -> None:
    def refused(output: Path) -> None:
        with pytest.raises(DatasetError):
            list(train(small_config(tmp_path / "missing", output)))

    refused(tmp_path / "a" / "b" / "run")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    refused(tmp_path / "a" / "b" / "run")
    assert listing(tmp_path) == ["a"]
    (tmp_path / "a" / "mine.txt").write_text("")
    refused(tmp_path / "a")
    assert "mine.txt" in listing(tmp_path / "a")


def test_a_picture_that_cannot_be_read_leaves_no_folder(shapes: Path, tmp_path: Path) -> None:
    dataset = Path(shutil.copytree(shapes, tmp_path / "data"))
    (dataset / "05.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"05\.png"):
        list(train(small_config(dataset, tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_handoff_of_another_stage_or_shape_is_refused_before_the_work(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    settings = {"unet_channels": [8, 16], "unet_heads": 2}
    save_handoff(path, Handoff({}, {}, 3, "unet", settings))
    with pytest.raises(ModelError, match="is of stage unet, this run trains vae") as caught:
        check_folder(config(tmp_path / "run", method="vae", handoff=str(path)))
    assert caught.value.hint == "give --method unet"
    with pytest.raises(ModelError, match="was made with unet_heads 2, this run asks for 4"):
        check_folder(config(tmp_path / "run", method="unet", handoff=str(path), unet_heads=4))
    check_folder(config(tmp_path / "run", method="unet", handoff=str(path), batch_size=8))
    with pytest.raises(T2IError, match="--handoff continues one stage") as caught:
        config(tmp_path / "run", handoff=str(path))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"resume": "runs/a/vae/checkpoints/checkpoint-00000003"}, "--resume CHECKPOINT continues one stage"),
        ({"save_handoff": "carry.safetensors"}, "--save-handoff carries one stage, and --method scratch"),
        ({"compile": True, "method": "clip"}, "--compile: the clip stage has nothing to compile"),
        ({"text_width": 10, "text_heads": 4}, "--text-width 10: must be a multiple of --text-heads 4"),
        (
            {"unet_channels": (8, 10), "unet_heads": 4},
            "--unet-channels 10: must be a multiple of --unet-heads 4",
        ),
        ({"unet_channels": (6,), "unet_heads": 4}, "--unet-channels 6: must be a multiple"),
        ({"unet_channels": (0, 8)}, "--unet-channels 0, 8: a width of at least 1"),
        ({"vae_channels": ()}, "--vae-channels without a value"),
        ({"vae_channels": (8,) * 5, "resolution": 24}, "--resolution 24: .* multiple of 16"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused_at_once(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(T2IError, match=told) as caught:
        config(Path("unused"), **changes)
    assert caught.value.exit_code == 2


def test_the_outermost_level_of_the_unet_needs_no_heads() -> None:
    config(Path("unused"), unet_channels=(6, 8), unet_heads=4)


def change_state(checkpoint: Path, **changes: Any) -> None:
    """Write other values into the state of a checkpoint, with a manifest that fits; None removes one."""
    from t2i import durable

    state = json.loads((checkpoint / "state.json").read_text())
    state = {key: value for key, value in {**state, **changes}.items() if value is not None}
    durable.write_json(checkpoint / "state.json", state)
    manifest = json.loads((checkpoint / checkpoints.MANIFEST).read_text())
    manifest["state.json"] = durable.sha256_file(checkpoint / "state.json")
    durable.write_json(checkpoint / checkpoints.MANIFEST, manifest)


@pytest.fixture(scope="module")
def vae_run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished vae stage. Read-only."""
    output = tmp_path_factory.mktemp("vae") / "run"
    list(train(small_config(shapes, output, method="vae")))
    return output


def resumed(dataset: Path, output: Path, **changes: Any) -> tuple[str, Any]:
    """The notice of resuming, and what done.json then says of exactness."""
    events = list(train(small_config(dataset, output, method="vae", resume="latest", **changes)))
    notice = next(event.notice for event in events if "resumed" in event.notice)
    return notice, json.loads((output / "vae" / "done.json").read_text())["exact"]


def test_a_resumed_run_says_what_changed_around_it(shapes: Path, vae_run: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(vae_run, tmp_path / "run"))
    newest = output / "vae" / "checkpoints" / "checkpoint-00000006"
    assert resumed(shapes, output) == ("resumed at step 6", True)
    copy = Path(shutil.copytree(shapes, tmp_path / "copy", copy_function=shutil.copyfile))
    assert resumed(copy, output) == ("resumed at step 6", True), "other times, the same bytes"

    other = Path(shutil.copytree(shapes, tmp_path / "other"))
    lines = (other / "metadata.jsonl").read_text().replace("circle", "ball")
    (other / "metadata.jsonl").write_text(lines)
    assert resumed(other, output) == ("resumed at step 6; changed: pictures and captions", False)

    conditions = json.loads((newest / "state.json").read_text())["conditions"]
    assert conditions["precision"] == "fp32" and conditions["device"] == "cpu"
    change_state(newest, conditions={**conditions, "precision": "bf16", "frozen parts": "0"})
    assert resumed(shapes, output) == ("resumed at step 6; changed: frozen parts, precision", False)


def test_a_checkpoint_from_before_the_conditions_were_kept_is_resumed(
    shapes: Path, vae_run: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(vae_run, tmp_path / "run"))
    newest = output / "vae" / "checkpoints" / "checkpoint-00000006"
    before = json.loads((newest / "state.json").read_text())["config"]
    before.pop("overwrite")
    change_state(newest, conditions=None, config=before)
    notice, exact = resumed(shapes, output)
    assert "changed" not in notice and exact is None
    unknown = "pictures and captions, frozen parts, precision, device"
    assert notice.endswith(f"unknown, for the checkpoint is older: {unknown}")
    change_state(newest, exact=False)
    assert resumed(shapes, output)[1] is False


def test_a_checkpoint_of_another_stage_is_told(shapes: Path, vae_run: Path, tmp_path: Path) -> None:
    path = vae_run / "vae" / "checkpoints" / "checkpoint-00000006"
    with pytest.raises(ModelError, match="is a checkpoint of vae, this run trains clip"):
        list(train(small_config(shapes, tmp_path / "run", method="clip", resume=str(path))))


def test_another_course_never_mixes_with_the_checkpoints_that_are_there(
    shapes: Path, vae_run: Path, tmp_path: Path
) -> None:
    """Else `--resume latest` would later go on from what the newer run did not do."""
    output = Path(shutil.copytree(vae_run, tmp_path / "run"))
    folder = output / "vae" / "checkpoints"
    first, last = list_checkpoints(folder)[0], list_checkpoints(folder)[-1]
    assert first != last
    elsewhere = vae_run / "vae" / "checkpoints" / first.name
    for path, told in ((first, f"{last} is later than {first.name}"), (elsewhere, "already holds a run")):
        with pytest.raises(StorageError, match=re.escape(told)):
            list(train(small_config(shapes, output, method="vae", resume=str(path), learning_rate=0.05)))
    for path in (first, elsewhere):
        steps = step_of(first) + 1
        again = small_config(
            shapes, output, method="vae", resume=str(path), overwrite=True, max_train_steps=steps
        )
        list(train(again))
        assert step_of(list_checkpoints(folder)[-1]) == steps
        assert json.loads((output / "vae" / "done.json").read_text())["step"] == steps
        shutil.rmtree(output)
        shutil.copytree(vae_run, output)


def test_a_folder_inside_the_dataset_is_refused(shapes: Path) -> None:
    with pytest.raises(T2IError, match="is in the dataset") as caught:
        next(train(small_config(shapes, shapes / "runs" / "train", method="vae")))
    assert caught.value.exit_code == 2 and not (shapes / "runs").exists()


def test_overwrite_trains_anew_and_leaves_what_no_training_writes(
    shapes: Path, vae_run: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(vae_run, tmp_path / "run"))
    (output / "vae" / "notes.txt").write_text("")
    list(train(small_config(shapes, output, method="vae", overwrite=True, max_train_steps=2, seed=1)))
    assert [path.name for path in (output / "vae" / "checkpoints").iterdir()] == ["checkpoint-00000002"]
    log = (output / "vae" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    assert (output / "vae" / "notes.txt").exists() and not list(output.rglob(".tmp-*"))
