"""Settings in a TOML file: what is read, what is refused and where, and that a config survives the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from t2i.cli import run
from t2i.config import GenerateConfig, TrainConfig
from t2i.config.durations import minutes
from t2i.config.files import read_settings, to_toml
from t2i.config.output import OutputConfig
from t2i.errors import StorageError, UsageError


def read(tmp_path: Path, text: str, kind: type = TrainConfig) -> dict[str, Any]:
    file = tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    return read_settings(file, [kind])[0]


def test_long_names_of_options_with_either_dash_are_keys(tmp_path: Path) -> None:
    text = (
        '# a run\ndataset = "imgs"\nlr = 1\nmax-train-time = "2h"\nvae_channels = [8, 16]\ncompile = true\n'
    )
    assert read(tmp_path, text) == {
        "dataset": "imgs", "learning_rate": 1.0, "max_train_time": 120.0, "vae_channels": (8, 16),
        "compile": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told", "hint"),
    [
        ("seed = 1\nstepz = 3\n", "line 2: unknown key stepz", "did you mean steps?"),
        ('steps = "many"', 'line 1: steps = "many": a whole number is needed', ""),
        ("steps = true", "line 1: steps = true: a whole number is needed", ""),
        ("steps = 2.5", "line 1: steps = 2.5: a whole number is needed", ""),
        ("lr = false", "line 1: lr = false: a number is needed", ""),
        ("\n\nsteps = 0", "line 3: --max-train-steps 0: must be at least 1", ""),
        ("overwrite = 1", "line 1: overwrite = 1: true or false is needed", ""),
        ("dataset = 1", "line 1: dataset = 1: text in quotes is needed", ""),
        ('optimizer = "sgd"', "line 1: --optimizer sgd: not one of adamw, adamw8bit", ""),
        ("vae-channels = 8", "line 1: vae-channels = 8: a list is needed, each a whole number", ""),
        ('vae-channels = ["8"]', 'line 1: vae-channels = ["8"]: a whole number is needed', ""),
        ('max-train-time = "soon"', 'max-train-time = "soon": a time such as 90s, 20m, 2h', ""),
        ("max-train-time = 0", "line 1: --max-train-time 0.0: must be above 0", ""),
        (
            "lr = 1\nlearning-rate = 1",
            "line 2: learning-rate sets --learning-rate a second time",
            "leave one",
        ),
        ("[train]\nsteps = 3", "line 1: train is a section", "without [sections]"),
        ("steps = = 3", "not TOML: Invalid value (at line 1", ""),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(tmp_path: Path, text: str, told: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert told in caught.value.message and "run.toml" in caught.value.message
    assert hint in caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no\.toml cannot be read: No such file"):
        read_settings(tmp_path / "no.toml", [TrainConfig])


def test_a_config_survives_the_way_through_a_file(tmp_path: Path) -> None:
    config = TrainConfig(
        dataset='my "pictures"\\ü\n\x7f', method="unet", sample_prompts=("a, b", "c"), learning_rate=1e-5,
        zero_terminal_snr=False, max_train_time=90.5, seed=7,
    )  # fmt: skip
    assert TrainConfig.from_dict(read(tmp_path, to_toml(config))) == config
    assert "seed" not in read(tmp_path, to_toml(config, leave_out=("seed",)))


def test_two_configs_share_a_file(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('steps = 5\noutput = "pictures/"\n')
    found = read_settings(file, [GenerateConfig, OutputConfig])
    assert found == [{"steps": 5}, {"output": "pictures/"}]
    with pytest.raises(UsageError, match="unknown key steps"):
        read_settings(file, [GenerateConfig, OutputConfig], skip=("steps",))


def test_the_command_line_wins_over_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f'dataset = "{tmp_path}/none"\nmethod = "vae"\nbatch-size = 5\n')
    assert run(["train", "--config", str(file), "--batch-size", "0"]) == 2
    assert "--batch-size 0: must be at least 1" in capsys.readouterr().err
    assert run(["train", "--config", str(file), "--max-train-time", "x"]) == 2
    assert "--max-train-time x: a time such as 90s, 20m, 2h or plain minutes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "wanted"), [("90s", 1.5), ("20m", 20), ("2h", 120), ("1d", 1440), ("0.5", 0.5), (" 3 M ", 3)]
)
def test_times(text: str, wanted: float) -> None:
    assert minutes(text) == wanted


@pytest.mark.parametrize("text", ["", "h", "1h30", "two hours", "5 weeks"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="90s, 20m, 2h"):
        minutes(text)


def test_generate_takes_a_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.toml"
    file.write_text('prompts = ["a dog"]\nsteps = 5\noutput = "x.gif"\n')
    assert run(["generate", "--config", str(file), "--steps", "0"]) == 2
    assert "--steps 0: must be at least 1" in capsys.readouterr().err
    assert run(["generate", "--config", str(file)]) == 2
    assert "x.gif" in capsys.readouterr().err
