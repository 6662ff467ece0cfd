"""CLIP: the numbers of transformers' own model, the scores of the paper, and nothing unsafe."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from t2i.errors import ModelError
from t2i.evaluation.adherence import clip_score
from t2i.evaluation.instruments import extract
from t2i.weights.clip_model import TEXT_PREFIX, Clip, find_clip

TEXTS = ["a dog on red", "a cat"]


@pytest.fixture(scope="module")
def clip(tiny_clip: Path) -> Clip:
    return Clip(tiny_clip, "tiny", torch.device("cpu"))


def test_embeddings_are_those_of_transformers(clip: Clip, tiny_clip: Path) -> None:
    from transformers import CLIPModel

    pictures = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    model = CLIPModel.from_pretrained(tiny_clip).eval()
    ids = clip.tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt").input_ids
    mean = torch.tensor([0.48, 0.46, 0.41]).reshape(3, 1, 1)
    std = torch.tensor([0.27, 0.26, 0.28]).reshape(3, 1, 1)
    with torch.no_grad():
        theirs = model(input_ids=ids, pixel_values=(pictures / 255 - mean) / std)
    torch.testing.assert_close(clip(pictures), theirs.image_embeds)
    torch.testing.assert_close(clip.embed_texts(TEXTS), theirs.text_embeds)
    assert (clip.side, clip.width) == (32, 24)


def test_clip_score_by_hand() -> None:
    pictures = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert clip_score(pictures, texts).tolist() == pytest.approx([2.5, 1.5, 0.0])


def test_long_texts_are_told(clip: Clip) -> None:
    assert clip.is_cut(TEXT_PREFIX + "a dog " * 20) and not clip.is_cut("a dog")


def test_pictures_of_any_size_are_cut_and_scaled(clip: Clip, tmp_path: Path) -> None:
    wide = np.zeros((40, 90, 3), np.uint8)
    wide[:, 25:65] = 200  # the middle square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(tmp_path / "square.png")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "black.png")
    features = extract(clip, [tmp_path / f"{name}.png" for name in ("wide", "square", "black")])
    assert features.dtype == torch.float64
    from_square, from_black = ((features[0] - features[k]).norm() for k in (1, 2))
    assert from_square < 0.05 * from_black


def without_normalisation(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def with_bad_normalisation(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 0]}')


def with_pickles_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def with_code(folder: Path) -> None:
    (folder / "modeling.py").write_text("")


def with_remote_code(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"auto_map": {"AutoModel": "x.Y"}}))


def of_another_kind(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "siglip"}))


def cut_short(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def without_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop("visual_projection.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_normalisation, "preprocessor_config.json"),
        (with_bad_normalisation, "image_std"),
        (with_pickles_only, "pickled data"),
        (with_code, "its own code"),
        (with_remote_code, "auto_map"),
        (of_another_kind, "not CLIP"),
        (cut_short, "cut short"),
        (without_a_weight, "visual_projection"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(
    tiny_clip: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(tiny_clip, folder)
    spoil(folder)
    with pytest.raises(ModelError, match=said):
        Clip(folder, "spoilt", torch.device("cpu"))


def test_a_name_that_is_nowhere_is_refused_without_the_network(no_network: None, tmp_path: Path) -> None:
    assert find_clip(str(tmp_path)) == tmp_path
    for name in ("./nothing", "no such thing", "someone/clip"):
        with pytest.raises(ModelError, match="--clip"):
            find_clip(name)
