"""Compose what a new pocket starts from: an earlier UNet and its words, new captions, a new autoencoder.

    python examples/pocket/grow.py --old MODEL --vae RUN/parts/vae --data RUN/data -o RUN/start

The captions of --data make a new tokenizer. Its tokens that the old one has too keep their embeddings, a new
plural begins near its singular, and every other new token begins at random. `t2i train --method unet --model
START --train-text-encoder` goes on from there. No weight of the UNet or of the text encoder's layers changes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from t2i.config import TrainConfig
from t2i.methods.clip import build_tokenizer, words_of
from t2i.weights.saving import save_folder

END_OF_WORD = "</w>"


def singulars(token: str) -> list[str]:
    """What a token may be the plural of, likeliest first: 'cherries' of 'cherrie', 'cherri' or 'cherry'."""
    word = token.removesuffix(END_OF_WORD)
    endings = {"s": "", "es": "", "ies": "y", "ves": "f"}
    return [
        word.removesuffix(ending) + instead + END_OF_WORD
        for ending, instead in endings.items()
        if word.endswith(ending)
    ]


def grown_embeddings(old: dict[str, int], rows: Tensor, new: dict[str, int], fresh: Tensor) -> Tensor:
    """The embeddings of new tokens.

    Args:
        old: Token → row of the old table.
        rows: The old table, (old tokens, width).
        new: Token → row of the new table.
        fresh: A new table as it is initialised, (new tokens, width).

    Returns:
        (new tokens, width): rows of tokens that both have are the old ones; the others have their deviation.
    """
    shared = [token for token in new if token in old and token.endswith(END_OF_WORD) and len(token) > 6]
    grown = fresh * (rows[[old[token] for token in shared]].std() / fresh.std())
    for token, row in new.items():
        if token in old:
            grown[row] = rows[old[token]]
            continue
        known = next((name for name in singulars(token) if name in old), None)
        if known is not None:
            grown[row] = 0.7 * rows[old[known]] + 0.7 * grown[row]  # near it, and as long
    return grown


def grow_text_encoder(model: Path, captions: list[str]) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """A tokenizer made of the captions, and the old model's text encoder with a table for it."""
    old = CLIPTextModel.from_pretrained(model / "text_encoder").float()
    old_tokens = CLIPTokenizer.from_pretrained(model / "tokenizer").get_vocab()
    most = TrainConfig(dataset="none", method="clip").vocabulary_size
    tokenizer = build_tokenizer(captions, most, old.config.max_position_embeddings)
    sizes = old.config.to_dict() | {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    encoder = CLIPTextModel(CLIPTextConfig(**sizes))
    kept = old.state_dict()
    table = next(name for name in kept if name.endswith("token_embedding.weight"))
    fresh = encoder.get_input_embeddings().weight.detach()
    kept[table] = grown_embeddings(old_tokens, kept[table], tokenizer.get_vocab(), fresh)
    encoder.load_state_dict(kept)
    return encoder, tokenizer


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--old", type=Path, required=True, help="folder of the earlier model")
    parser.add_argument("--vae", type=Path, required=True, help="folder of the new autoencoder")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with the metadata.jsonl of render.py"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make")
    options = parser.parse_args()
    needed = (options.old / "t2i.json", options.vae / "config.json", options.data / "metadata.jsonl")
    for path in needed:
        if not path.is_file():
            parser.error(f"{path} is missing: --old is a model, --vae an autoencoder, --data rendered scenes")
    torch.manual_seed(0)
    with (options.data / "metadata.jsonl").open(encoding="utf-8") as file:
        captions = [json.loads(line)["text"] for line in file]
    encoder, tokenizer = grow_text_encoder(options.old, captions)
    save_folder(
        options.output,
        unet=UNet2DConditionModel.from_pretrained(options.old / "unet").float(),
        vae=AutoencoderKL.from_pretrained(options.vae).float(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler_config=json.loads((options.old / "scheduler" / "scheduler_config.json").read_text()),
        defaults=json.loads((options.old / "t2i.json").read_text()),
        known_words=words_of(captions),
        overwrite=True,
    )
    print(f"{options.output}: {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
