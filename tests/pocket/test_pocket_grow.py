"""A new pocket begins with what an earlier one knows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import grow
import pytest
import render_suite
import torch
from PIL import Image
from suite import held_out_plans
from transformers import CLIPTextModel, CLIPTokenizer


def test_known_tokens_keep_their_rows_and_plurals_begin_near_their_singulars() -> None:
    old = {"dog</w>": 0, "cherry</w>": 1, "a</w>": 2, "kitten</w>": 3}
    torch.manual_seed(0)
    rows = torch.randn(4, 64) * 5
    new = {"a</w>": 0, "cherries</w>": 1, "wolf</w>": 2, "kitten</w>": 3, "cherry</w>": 4}
    grown = grow.grown_embeddings(old, rows, new, torch.randn(5, 64) * 0.02)
    assert torch.equal(grown[[0, 3, 4]], rows[[2, 3, 1]])
    alike = torch.cosine_similarity(grown[[1, 2]], rows[[1]])
    assert alike[0] > 0.5 > abs(alike[1])
    assert grown.norm(dim=1).std() < 0.2 * grown.norm(dim=1).mean()


@pytest.mark.parametrize(
    ("token", "of"),
    [("dogs</w>", "dog"), ("cherries</w>", "cherry"), ("wolves</w>", "wolf"), ("mice</w>", None)],
)
def test_singulars(token: str, of: str | None) -> None:
    assert (f"{of}</w>" in grow.singulars(token)) is (of is not None)


def test_the_folder_holds_the_old_unet_and_the_words_of_the_new_captions(
    tiny_pocket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    captions = ["a wolf on a red background", "two dogs", "a dog and a wolf"] * 4
    (data / "metadata.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in captions))
    line = ["grow.py", "--old", str(tiny_pocket), "--vae", str(tiny_pocket / "vae"), "--data", str(data)]
    monkeypatch.setattr(sys, "argv", [*line, "-o", str(tmp_path / "start")])
    grow.main()
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "start" / weights).read_bytes() == (tiny_pocket / weights).read_bytes()
    old, new = (
        (
            CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            CLIPTextModel.from_pretrained(folder / "text_encoder"),
        )
        for folder in (tiny_pocket, tmp_path / "start")
    )
    rows = [
        encoder.get_input_embeddings().weight[tokenizer("dog").input_ids[1]]
        for tokenizer, encoder in (old, new)
    ]
    assert torch.equal(*rows)
    assert len(new[0]("wolf").input_ids) == 3 < len(old[0]("wolf").input_ids)
    assert json.loads((tmp_path / "start" / "tokenizer" / "words.json").read_text()) == sorted(
        {word for text in captions for word in text.split()}
    )


def test_a_folder_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["grow.py", "--old", "nowhere", "--vae", "x", "--data", "y", "-o", str(tmp_path / "start")]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit):
        grow.main()
    assert "nowhere/t2i.json is missing" in capsys.readouterr().err and not (tmp_path / "start").exists()


def test_the_suite_is_rendered_as_its_prompts_say(
    tmp_path: Path, ten_font: Path, ten: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [plan for plan in held_out_plans() if ten >= {*plan.concepts}]
    monkeypatch.setattr(render_suite, "held_out_plans", lambda: plans)
    assert render_suite.render_suite(tmp_path / "a", 2, 64, 0, ten_font) == 2 * len(plans) > 0
    rows = [json.loads(line) for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()]
    assert len({row["text"] for row in rows}) == len(plans)
    assert Image.open(tmp_path / "a" / rows[0]["file_name"]).size == (64, 64)
    with pytest.raises(FileExistsError, match="already holds pictures"):
        render_suite.render_suite(tmp_path / "a", 2, 64, 0, ten_font)
