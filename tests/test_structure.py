"""The house: who may import whom, how large a file may be, and what only one place may do."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

import t2i
from t2i.config import GenerateConfig, flag_of
from t2i.config.output import OutputConfig

PACKAGE = Path(t2i.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# One floor a line, lowest first. A module imports only from floors below its own.
LAYERS = [
    {"version", "errors", "texts"},
    {"config", "durable", "naming", "environment", "pages", "tiles"},
    {"catalog", "schedulers", "jobs", "hashes", "charts", "flops"},
    {"recipes", "promptfiles"},
    {"diffusion", "guidance", "conditioning", "edges"},
    {"sampling"},
    {"devices"},
    {"families", "latents", "dataset", "images", "checkpoints"},
    {"memory"},
    {"weights", "methods"},  # a loaded model is a family with its parts; a method reads a dataset and encodes
    {"settling"},
    {"pictures"},
    {"pipeline"},
    {"training", "verification", "comparison", "evaluation", "batch", "datacheck"},
    {"sweep"},  # a sweep is drawn as a batch
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {name: floor for floor, names in enumerate(LAYERS) for name in names}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "core", "manager", "misc"}
SOFT_LINES, HARD_LINES = 300, 400


def module_of(path: Path) -> str:
    """The top-level module or package a file belongs to: t2i/cli/show.py is "cli"."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def internal_imports(path: Path) -> set[str]:
    """Modules of t2i that a file imports, anywhere in it, except for type checking only."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: write the whole name of the module"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "t2i" else [base]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("t2i.")}
    return found - {module_of(path)}


def test_every_module_has_a_floor() -> None:
    assert {module_of(path) for path in FILES} == set(LEVEL)


def test_imports_point_down() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} -> {target}"
        for path in FILES
        for target in sorted(internal_imports(path))
        if LEVEL[target] >= LEVEL[module_of(path)]
    ]
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= HARD_LINES, "it holds two things: make it a package of the same name"
    assert path.stem not in FORBIDDEN_NAMES
    assert ast.get_docstring(ast.parse(text)), "a module says what it owns"
    assert not re.search(r"\bT2I_[A-Z]+_TOKEN\b|/home/|/root/|/work/", text), "no machine's paths"


@cache
def all_calls() -> frozenset[tuple[str, str]]:
    """(what is called, as "Image.open"; file) of the whole package."""
    return frozenset(
        (ast.unparse(node.func), str(path.relative_to(PACKAGE)))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    )


def calls(name: str) -> set[str]:
    """Files in which `name` is called."""
    return {path for called, path in all_calls() if called == name}


def test_what_only_one_place_may_do() -> None:
    assert calls("Image.open") <= {"images.py", "dataset/decoding.py"}
    assert calls("torch.load") == set()
    assert calls("torch.save") == set()
    assert calls("torch.manual_seed") <= {"training/stage.py", "methods/lora.py"}  # first weights, dropout
    for never in ("pickle.load", "pickle.loads", "eval", "exec", "os.system"):
        assert calls(never) == set()


def test_public_functions_are_described() -> None:
    bare = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert bare == []


def test_the_command_line_offers_what_the_config_has() -> None:
    from t2i.cli.generate import command

    parameters = command.__signature__.parameters  # type: ignore[attr-defined]
    for config in (GenerateConfig, OutputConfig):
        for item in fields(config):
            info = parameters[item.name].annotation.__metadata__[0]
            flags = {str(info.default), *map(str, info.param_decls or ())}
            if item.name != "prompts":
                assert any(flag.split("/")[0] == flag_of(item.name) for flag in flags), item.name
            assert set(item.metadata["option"].names) <= flags
            assert parameters[item.name].default is None, "defaults stand in the config alone"


def test_no_flag_means_two_things() -> None:
    flags = [
        name
        for config in (GenerateConfig, OutputConfig)
        for item in fields(config)
        for name in (flag_of(item.name), *item.metadata["option"].names)
    ]
    assert sorted(flags) == sorted(set(flags))


def test_every_command_has_a_file_and_every_file_a_command() -> None:
    from t2i.cli import COMMANDS

    shared = {"__init__", "door", "options", "drawing"}
    assert {path.stem for path in (PACKAGE / "cli").glob("*.py")} - shared == set(COMMANDS)
