"""Textual inversions: their files, their tokens in prompts, and the picture that plain Diffusers draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Run
from made_loras import load
from safetensors.torch import save_file
from test_lora_pictures import GUIDANCE, NEAR, STEPS, config, distance, draw

from t2i import weights
from t2i.errors import ModelError, UsageError

GENERATOR = torch.Generator().manual_seed(5)
VECTORS = torch.randn(3, 32, generator=GENERATOR)


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    path = tmp_path / "easy.safetensors"
    save_file({"<fur>": VECTORS}, str(path))
    return path


def test_the_picture_is_that_of_diffusers(tiny_sd1: Path, embedding: Path) -> None:
    from diffusers import StableDiffusionPipeline

    from t2i.schedulers import make_scheduler

    prompt = "a <fur> corgi"
    model, lines = load(tiny_sd1), list[str]()
    settings = config(tiny_sd1, embedding=(str(embedding),)).replace(prompts=(prompt,))
    picture = draw(settings, model, tell=lines.append)
    assert "embedding easy.safetensors: token '<fur>', 3 vectors" in lines
    pipe = StableDiffusionPipeline.from_pretrained(str(tiny_sd1))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler("ddim", dict(pipe.scheduler.config))
    pipe.load_textual_inversion({"<fur>": VECTORS})
    expected = pipe(
        prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, width=32, height=32,
        generator=torch.Generator().manual_seed(1), output_type="np",
    ).images[0]  # fmt: skip
    assert distance(picture, expected) < NEAR
    own = picture.recipe["embeddings"][0]
    assert own["file"] == "easy.safetensors" and own["token"] == "<fur>" and own["vectors"] == 3
    plain = config(tiny_sd1).replace(prompts=(prompt,))
    without = draw(plain, model).pixels
    assert np.abs(without.astype(int) - picture.pixels).max() > 2
    assert (without == draw(plain, load(tiny_sd1)).pixels).all(), "nothing stays behind"
    assert type(model.family.parts.tokenizers[0]).__name__ == "CLIPTokenizer"


def test_tokens_are_whole_words_in_any_case_and_stand_for_all_their_vectors() -> None:
    from tiny_models import make_tokenizer

    from t2i.families.added_tokens import AddedTokens
    from t2i.families.prompts import explain_prompt, prompt_chunks

    tokenizer = make_tokenizer()
    size = len(tokenizer)
    added = AddedTokens(tokenizer, {"cat": [size, size + 1], "<Fur>": [size + 2]})
    plain = tokenizer("catalog a", add_special_tokens=False).input_ids
    assert added("catalog a").input_ids == plain
    a = tokenizer("a", add_special_tokens=False).input_ids
    assert added("a CAT, a<fur>").input_ids == [
        *a, size, size + 1, *tokenizer(",", add_special_tokens=False).input_ids, *a, size + 2
    ]  # fmt: skip
    assert explain_prompt(added, "a cat").chunks == (("a", "cat", "cat_1"),)
    ids = prompt_chunks(AddedTokens(make_tokenizer(max_length=6), {"cat": [size, size + 1]}), "a a a cat")
    assert [chunk[1:3] for chunk in ids] == [[*a, *a], [size, size + 1]], "a token is not cut in two"


def test_sdxl_takes_a_table_for_each_encoder(tiny_sdxl: Path, tmp_path: Path, embedding: Path) -> None:
    path = tmp_path / "Style.safetensors"
    save_file({"clip_l": VECTORS, "clip_g": VECTORS.flip(0)}, str(path))
    found = weights.inspect_embedding(path)
    assert (found.format, found.token, found.vectors, found.widths) == ("sdxl", "Style", 3, (32, 32))
    model = load(tiny_sdxl)
    settings = config(tiny_sdxl, embedding=(str(path),)).replace(prompts=("a style corgi",))
    weights.use_adapters(model, weights.find_adapters(settings, ""), lambda line: None)
    for encoder, vectors in zip(model.family.parts.text_encoders, (VECTORS, VECTORS.flip(0)), strict=True):
        table = encoder.get_input_embeddings()
        first = table.base.num_embeddings
        assert torch.equal(table(torch.tensor([[3, first, first + 2]]))[0, 1:], vectors[[0, 2]])
        assert torch.equal(table(torch.tensor([3])), table.base(torch.tensor([3])))
    with pytest.raises(ModelError, match=r"has vectors of 32 numbers; the text encoders .* take 32 and 32"):
        one = config(tiny_sdxl, embedding=(str(embedding),))
        weights.use_adapters(model, weights.find_adapters(one, ""), lambda line: None)


def test_the_form_of_automatic1111_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "EasyNegative.safetensors"
    save_file({"emb_params": torch.ones(8, 768)}, str(path))
    found = weights.inspect_embedding(path)
    assert (found.format, found.token, found.vectors) == ("a1111", "EasyNegative", 8)
    save_file({"<one>": torch.ones(768)}, str(path))
    assert weights.inspect_embedding(path).vectors == 1


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"a": torch.ones(1, 2, 3)}, "not .vectors, width."),
        ({"a": torch.ones(0, 3)}, "not .vectors, width."),
        ({"a b": torch.ones(600, 3)}, "at most 512"),
        ({" a": torch.ones(3)}, "cannot be a token"),
        ({"a": torch.ones(3), "b": torch.ones(3)}, "holds 2 tensors"),
        ({"clip_l": torch.ones(1, 3), "clip_g": torch.ones(2, 3)}, "different numbers of vectors"),
        ({"unet.x.lora_A.weight": torch.ones(2, 3)}, "is a LoRA"),
    ],
)
def test_files_that_are_none(tensors: dict[str, torch.Tensor], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors, str(path))
    with pytest.raises(ModelError, match=reason):
        weights.inspect_embedding(path)


def test_numbers_that_are_not_finite_and_equal_tokens(
    tiny_sd1: Path, tmp_path: Path, embedding: Path
) -> None:
    bad, same = tmp_path / "bad.safetensors", tmp_path / "same.safetensors"
    save_file({"<bad>": torch.full((1, 32), torch.nan)}, str(bad))
    save_file({"<FUR>": VECTORS}, str(same))
    model = load(tiny_sd1)
    with pytest.raises(ModelError, match="not finite"):
        weights.use_adapters(model, weights.find_adapters(config(tiny_sd1, embedding=(str(bad),)), ""), print)
    with pytest.raises(UsageError, match="the token"):
        weights.find_adapters(config(tiny_sd1, embedding=(str(embedding), str(same))), "")


def test_explain_prompt_shows_the_token(run: Run, embedding: Path) -> None:
    done = run("generate", "a <fur>", "--explain-prompt", "--embedding", embedding, "--json", "--offline")
    assert done.code == 0, done.err
    assert done.events[0]["chunks"][0][-3:] == ["<fur>", "<fur>_1", "<fur>_2"]
