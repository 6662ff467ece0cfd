"""Run the steps of a GitHub workflow on this machine, as they are written, in a copy of the checkout.

    python examples/ci/run-steps.py [WORKFLOW] [--spoil] [--reuse-packages] [--workspace DIR]

Steps with `run` and the actions of this repository are executed; other actions need GitHub and are named and
skipped. Of `if`, only success(), failure() and always() are known. The exit code is that of the steps.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SPOILED = "t2i/assets/pocket/vae/diffusion_pytorch_model.safetensors", "decoder.conv_out.bias"


class Steps:
    """Runs steps one after the other; after a failure only those that ask for it."""

    def __init__(self, workspace: Path, environment: Mapping[str, str]) -> None:
        self.workspace, self.environment, self.code = workspace, dict(environment), 0

    def run(self, steps: list[dict[str, Any]], contexts: Mapping[str, str]) -> None:
        """Run the steps of a job or of a composite action.

        Args:
            steps: As YAML has them.
            contexts: What `${{ name }}` stands for.
        """
        for step in steps:
            if not {"success()": not self.code, "failure()": bool(self.code), "always()": True}[
                step.get("if", "success()")
            ]:
                continue
            values = {name: fill(str(value), contexts) for name, value in step.get("with", {}).items()}
            uses = step.get("uses", "")
            if uses.startswith("./"):
                folder = self.workspace / uses
                action = yaml.safe_load((folder / "action.yml").read_text())
                inputs = {
                    name: str(one.get("default", "")) for name, one in action["inputs"].items()
                } | values
                inner = {f"inputs.{name}": value for name, value in inputs.items()}
                self.run(action["runs"]["steps"], {**inner, "github.action_path": str(folder)})
            elif uses:
                print(f"skipped, it needs GitHub: {uses} {values or ''}", flush=True)
            else:
                self.execute(fill(step["run"], contexts), step.get("env", {}), contexts)

    def execute(self, script: str, environment: Mapping[str, Any], contexts: Mapping[str, str]) -> None:
        """Run a script as GitHub runs `shell: bash`."""
        own = {name: fill(str(value), contexts) for name, value in environment.items()}
        print("\n".join(f"$ {line}" for line in script.splitlines()), flush=True)
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        code = subprocess.run(command, cwd=self.workspace, env={**self.environment, **own}).returncode
        print(f"exit code {code}", flush=True)
        self.code = self.code or code


def fill(text: str, contexts: Mapping[str, str]) -> str:
    """Put values in place of `${{ name }}`; an unknown name is an error."""
    return re.sub(r"\$\{\{\s*([\w.-]+)\s*\}\}", lambda found: contexts[found[1]], text)


def copy_checkout(target: Path) -> None:
    """Everything that git knows or would add, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def make_environment(folder: Path, reuse: bool) -> dict[str, str]:
    """A new virtual environment; with `reuse` the packages of this Python are in it as well."""
    venv.create(folder, with_pip=True)
    if reuse:
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "reused.pth").write_text(
            "\n".join(path for path in sys.path if path.endswith("site-packages"))
        )
    return {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "CI": "true"}


def spoil(workspace: Path) -> None:
    """Change one weight of pocket."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path, name = workspace / SPOILED[0], SPOILED[1]
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    weights = load_file(path)
    weights[name][0] += 0.1
    save_file(weights, path, metadata)
    print(f"spoiled: {name}", flush=True)


def main() -> int:
    """Run the workflow; returns the exit code of its steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workflow", nargs="?", default=".github/workflows/smoke.yml")
    parser.add_argument("--spoil", action="store_true", help="change one weight of pocket first")
    parser.add_argument(
        "--reuse-packages", action="store_true", help="install t2i beside what this Python has"
    )
    parser.add_argument(
        "--workspace", type=Path, help="new folder for the copy, which stays; default: none stays"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = (options.workspace or Path(temporary) / "workspace").absolute()
        workspace.mkdir(parents=True)
        copy_checkout(workspace)
        if options.spoil:
            spoil(workspace)
        environment = make_environment(Path(temporary) / "venv", options.reuse_packages)
        steps = Steps(workspace, environment)
        for job in yaml.safe_load((workspace / options.workflow).read_text())["jobs"].values():
            steps.run(job["steps"], {})
        return steps.code


if __name__ == "__main__":
    sys.exit(main())
