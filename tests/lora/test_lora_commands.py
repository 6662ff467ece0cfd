"""LoRAs through the commands: recipes that find them again, batches, sweeps, dry runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import Run
from made_loras import make_lora
from safetensors.torch import save_file

from t2i import images, recipes

DRAWING = ("--steps", 1, "--size", "32x32", "--offline")


def test_a_recipe_names_its_loras_and_finds_them_again(
    run: Run, tiny_pocket: Path, pocket_lora: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(pocket_lora, other)
    fur = other / "fur.safetensors"
    save_file({"<fur>": torch.ones(2, 32)}, str(fur))
    lora = ("--lora", f"{other / 'corgi.safetensors'}:0.8", "--embedding", fur)
    asked = ("a <fur> corgi", "-m", tiny_pocket, *lora, "--seed", 3, *DRAWING)
    planned = run("generate", *asked, "--dry-run", "--json")
    assert [row["file"] for row in planned.events[0]["pictures"][0]["loras"]] == ["corgi.safetensors"]
    made = run("generate", *asked, "-o", "a.png")
    assert made.code == 0, made.err
    assert "lora corgi.safetensors x0.8: 60 of 60 layers" in made.err
    recipe = images.read_recipe(tmp_path / "a.png")
    assert recipe["config"]["lora"] == ["corgi.safetensors:0.8"]
    assert recipe["config"]["embedding"] == ["fur.safetensors"]
    assert [row["scale"] for row in recipe["loras"]] == [0.8] and len(recipe["loras"][0]["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(recipe)
    shown = run("show", "a.png").out
    assert "corgi.safetensors (scale 0.8, peft, sha256 " in shown and "fur.safetensors (token <fur>" in shown

    where = ("-m", tiny_pocket)
    lost = run("verify", "a.png", *where)
    assert lost.code == 4 and "say where it is with --lora" in lost.err
    places = ("--lora", other / "corgi.safetensors", "--embedding", fur)
    held = run("verify", "a.png", *where, *places)
    assert held.code == 0 and "pixels: exact" in held.out, held.out + held.err
    again = run("replay", "a.png", *where, *places, "-o", "b.png", "--offline")
    assert again.code == 0, again.err
    assert (images.read_pixels(tmp_path / "b.png") == images.read_pixels(tmp_path / "a.png")).all()
    assert run("verify", "a.png", *where, *places, "--lora", "other.safetensors").code == 2

    make_lora(other / "corgi.safetensors", tiny_pocket, seed=9)
    changed = run("verify", "a.png", *where, *places)
    assert changed.code == 1 and "inputs: changed (lora corgi.safetensors)" in changed.out
    (other / "corgi.safetensors").write_bytes(b"no LoRA any more")
    assert run("verify", "a.png", *where, *places).code == 4
    told = run(
        "replay", "a.png", *where, "--lora", pocket_lora, "--embedding", fur, "-o", "c.png", "--offline"
    )
    assert told.code == 0 and "changed since" not in told.err


def test_what_a_lora_has_seen_nobody_knows(run: Run, tiny_pocket: Path, pocket_lora: Path) -> None:
    with_lora = run(
        "generate", "a sks dog", "-m", tiny_pocket, "--lora", pocket_lora, *DRAWING, "-o", "a.png"
    )
    without = run("generate", "a sks dog", "-m", tiny_pocket, *DRAWING, "-o", "b.png")
    assert with_lora.code == without.code == 0, with_lora.err + without.err
    assert "never seen" not in with_lora.err and "never seen in training: sks" in without.err


def test_a_token_in_no_prompt_is_told(run: Run, tiny_pocket: Path, tmp_path: Path) -> None:
    save_file({"<fur>": torch.ones(2, 32)}, str(tmp_path / "fur.safetensors"))
    done = run("generate", "a corgi", "-m", tiny_pocket, "--textual-inversion", "fur", *DRAWING, "--dry-run")
    assert done.code == 0 and "'<fur>' is in no prompt" in done.err


def test_batches_tell_pictures_by_the_content_of_their_loras(
    run: Run, tiny_pocket: Path, pocket_lora: Path, tmp_path: Path
) -> None:
    shutil.copy(pocket_lora, tmp_path)
    lines = [
        {"prompt": "a corgi", "lora": "corgi.safetensors:0.5"},
        {"prompt": "a corgi", "lora": ["corgi.safetensors:0.5"], "seed": 4},
        {"prompt": "a corgi", "seed": 4},
        {"prompt": "a corgi <lora:corgi:0.5>", "seed": 4},
        {"prompt": "a corgi <lora:gone:0.5>", "seed": 4},
    ]
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    more = ("--deterministic", "--json", "--no-report", "--run-seed", 1)
    command = ("batch", file, "-o", "out", "-m", tiny_pocket, *DRAWING, *more)
    done = run(*command)
    assert done.code == 3, done.err
    assert "cannot be drawn: <lora:gone>: there is no file gone.safetensors" in done.err
    drawn = [event for event in done.events if event["event"] == "done"]
    pixels = {event["line"]: images.read_pixels(Path(event["path"])) for event in drawn}
    assert set(pixels) == {1, 2, 3, 4}
    assert (pixels[2] != pixels[3]).any(), "other LoRAs share no batch"
    assert (pixels[2] == pixels[4]).all(), "by option or by tag"
    assert [event for event in run(*command).events if event["event"] == "done"] == []
    make_lora(tmp_path / "corgi.safetensors", tiny_pocket, seed=9)
    again = [event["line"] for event in run(*command).events if event["event"] == "done"]
    assert sorted(again) == [1, 2, 4], "another file of that name is another picture"


def test_lines_of_text_may_have_several(run: Run, tiny_pocket: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("a corgi --lora a:0.5 --lora b\na corgi --lora a:strong\n")
    done = run("batch", file, "-o", "out", "-m", tiny_pocket, "--offline", "--dry-run")
    assert done.code == 2 and "line 2" in done.err and "is no scale" in done.err
    file.write_text("a corgi --lora a:0.5 --lora b\n")
    done = run("batch", file, "-o", "out", "-m", tiny_pocket, "--offline", "--dry-run")
    assert "--lora a: there is no such file" in done.err


def test_a_batch_without_loras_keeps_the_ids_that_it_had(tiny_pocket: Path, tmp_path: Path) -> None:
    """What is drawn already is not drawn again because t2i has more options than before."""
    from t2i.batch.plan import NOT_IN_ID, plan_batch
    from t2i.config import GenerateConfig
    from t2i.promptfiles import Entry

    def plan(config: GenerateConfig) -> str:
        entry = Entry(1, config, "a", "", None, None, (), 0, 1)
        return plan_batch([entry], {}, tmp_path)[0].id

    config = GenerateConfig(prompts=("a",), seed=1, model=str(tiny_pocket))
    import hashlib

    from t2i.batch.plan import identity
    from t2i.settling import preview

    settled = preview(config).replace(prompts=(), seed=None).to_dict()
    added = {"lora", "lora_scale", "embedding", "controlnet", "control_image", "control_scale"}
    added |= {"control_kind"}
    known = {name: value for name, value in settled.items() if name not in {*NOT_IN_ID, *added}}
    shapes = {"config": known, "model": identity(str(tiny_pocket)), "prompt": "a", "seed": 1, "output": None}
    assert plan(config) == hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def test_scales_and_files_are_axes_of_a_sweep(
    run: Run, tiny_pocket: Path, pocket_lora: Path, tmp_path: Path
) -> None:
    common = ("-m", tiny_pocket, "--seed", 1, *DRAWING)
    scales = run("sweep", "a corgi", "--lora", pocket_lora, "--axis", "lora-scale=0,1", *common, "-o", "one")
    assert scales.code == 0, scales.err
    files = run("sweep", "a corgi", "--axis", f"lora=,{pocket_lora}:1", *common, "-o", "two")
    assert files.code == 0, files.err
    one, two = (sorted((tmp_path / name / "pictures").iterdir()) for name in ("one", "two"))
    pixels = {path.name: images.read_pixels(path).tobytes() for path in (*one, *two)}
    assert len(set(pixels.values())) == 2 and len(pixels) == 4, "each value is drawn once in each"
    table = (tmp_path / "two" / "sweep.csv").read_text()
    assert "corgi.safetensors:1" in table and str(pocket_lora.parent) not in table
    missing = run("sweep", "a corgi", "--axis", "lora=none.safetensors", *common, "-o", "three")
    assert missing.code == 2 and "there is no such file" in missing.err


def test_a_recipe_cannot_name_a_file_elsewhere() -> None:
    recipe = {
        "config": {"prompts": ["a"], "lora": ["/etc/a:1.0", r"..\b"], "embedding": ["../c"]},
        "image": {},
    }
    config = recipes.config_of(recipe)
    assert (config.lora, config.embedding) == (("a:1.0", "b"), ("c",))


@pytest.mark.parametrize("option", ["--lora", "--embedding"])
def test_a_missing_file_stops_before_a_model_is_loaded(
    option: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from t2i import pipeline

    monkeypatch.setattr(pipeline, "load", lambda *_: pytest.fail("a model was loaded"))
    done = run("generate", "a corgi", option, "none.safetensors", "--offline")
    assert done.code == 4 and done.out == "" and "none.safetensors: there is no such file" in done.err
