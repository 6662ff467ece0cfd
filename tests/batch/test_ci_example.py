"""The workflow of `examples/ci` and the script that runs its steps on any machine."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import REQUIRED

from t2i import images
from t2i.batch.golden import read_golden
from t2i.promptfiles import parse_prompt_file

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ci"
ACTION = yaml.safe_load((ROOT / ".github/actions/t2i-batch/action.yml").read_text())


@pytest.fixture(scope="module")
def run_steps() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("run_steps", EXAMPLE / "run-steps.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_golden_file_and_prompts_belong_together() -> None:
    entries = parse_prompt_file((EXAMPLE / "smoke.txt").read_bytes(), "txt").entries
    golden = read_golden(EXAMPLE / "golden.json")
    asked = sorted((entry.config.prompts[0], entry.config.seed) for entry in entries)
    assert asked == sorted((one.prompt, one.seed) for one in golden.pictures.values())
    for one in golden.pictures.values():
        assert images.pixels_sha256(images.read_pixels(one.reference)) == one.pixels_sha256
    assert {one.reference for one in golden.pictures.values()} == set((EXAMPLE / "golden").iterdir())


def test_the_workflow_names_what_is_there() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/smoke.yml").read_text())["jobs"].values()
    given = job["steps"][-1]["with"]
    assert set(given) <= set(ACTION["inputs"])
    assert (ROOT / given["file"]).exists() and (ROOT / given["expect"]).exists()
    named = set(re.findall(r"inputs\.(\w+)", (ROOT / ".github/actions/t2i-batch/action.yml").read_text()))
    assert named == set(ACTION["inputs"])


def test_ci_skips_no_test_of_a_page() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert job["env"] == {REQUIRED: "1"} and job["steps"][-1] == {"run": "bash .ci/run"}


@pytest.mark.parametrize("fails", [False, True])
def test_the_action_calls_t2i_with_its_inputs(run_steps: Any, tmp_path: Path, fails: bool) -> None:
    """The action's own script, with programs in place of pip and t2i that write down how they were called."""
    for name in ("python", "t2i"):
        program = tmp_path / name
        code = int(fails and name == "t2i")
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >> {tmp_path}/calls\nexit {code}\n')
        program.chmod(0o755)
    folder = tmp_path / "action"
    folder.mkdir()
    (folder / "action.yml").write_text((ROOT / ".github/actions/t2i-batch/action.yml").read_text())
    steps = run_steps.Steps(tmp_path, {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    given = {"file": "my prompts.txt; exit 9", "arguments": "--steps 3 *"}
    given |= {"expect": "golden.json"} if fails else {}
    after = [{"run": f"touch {tmp_path}/on", "if": "failure()"}, {"run": f"touch {tmp_path}/never"}]
    steps.run([{"uses": "./action", "with": given}, *after[: 1 + fails]], {})
    called = ["t2i", "batch", given["file"], "--output", "t2i-pictures", "--junit", "t2i-pictures/junit.xml"]
    called += [*(["--expect", "golden.json"] if fails else []), "--steps", "3", "*"]
    lines = (tmp_path / "calls").read_text().splitlines()
    assert lines[:4] == ["python", "-m", "pip", "install"] and lines[5:] == called
    assert steps.code == fails
    assert (tmp_path / "on").exists() == fails and not (tmp_path / "never").exists()


def test_an_unknown_expression_is_an_error(run_steps: Any) -> None:
    assert run_steps.fill("a ${{ inputs.x }} b ${{inputs.x}}", {"inputs.x": "1"}) == "a 1 b 1"
    with pytest.raises(KeyError):
        run_steps.fill("${{ secrets.TOKEN }}", {})
