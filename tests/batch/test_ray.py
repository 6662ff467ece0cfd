"""Ray's actors draw a batch: the same pictures, each once, also where one of them is killed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from command_line import run_line

from t2i.batch import Limits, draw_shared, open_manifest, plan_batch
from t2i.config.batch import BatchConfig
from t2i.promptfiles import PromptOptions, parse_prompt_file

# Not importorskip: Ray reads at its import whether it wants tokens.
without_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='pip install "t2i[ray]"')
pytestmark = [pytest.mark.slow, without_ray]

PROMPTS = [
    f"a {colour} {thing} {n}" for n in range(50) for colour in ("red", "blue") for thing in ("dog", "cat")
]


def digests(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of the pictures."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("0*.png"))
    }


def test_two_actors_and_one_of_them_killed(
    tmp_path: Path, tiny_pocket: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("\n".join(PROMPTS) + "\n")
    settings = ["-m", tiny_pocket, "--steps", 1, "--size", "16x16", "--run-seed", 3, "--deterministic"]
    assert run_line(capsys, "batch", "p.txt", *settings, "-o", "alone").code == 0

    defaults = {"model": str(tiny_pocket), "steps": 1, "width": 16, "height": 16, "deterministic": True}
    options = PromptOptions(defaults, run_seed=3)
    entries = parse_prompt_file(Path("p.txt").read_bytes(), "txt", options=options).entries
    config = BatchConfig(output="out", engine="ray", devices="cpu,cpu")
    told, warned = list[str](), list[str]()
    with open_manifest(Path("out")) as manifest:
        todo = plan_batch(entries, manifest.records, Path("out"))
        records = draw_shared(config, todo, Path("out"), manifest, Limits(), told.append, warned.append)
        next(records)
        assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
        victim = re.findall(r"process (\d+) on", told[0])
        os.kill(int(victim[0]), signal.SIGKILL)
        assert [record["status"] for record in records] == ["done"] * (len(PROMPTS) - 1)
    assert digests(Path("out")) == digests(Path("alone"))
    assert len(Path("out/manifest.jsonl").read_text().splitlines()) == len(PROMPTS)
    assert "the worker on cpu died: its worker process has died" in warned[0]
    assert capsys.readouterr().out == "", "stdout is for results"


def test_a_cluster_that_does_not_answer(
    tmp_path: Path, tiny_pocket: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a dog\n")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        line = ["p.txt", "-m", tiny_pocket, "-o", "out", "--engine", "ray", "--ray-address", address]
        result = run_line(capsys, "batch", *line)
    assert result.code == 4 and f"the Ray cluster {address} cannot be used: Connection refused" in result.err
