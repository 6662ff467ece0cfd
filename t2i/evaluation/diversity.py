"""How much the pictures of one prompt differ: mean pairwise distance over its seeds."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i.evaluation.figures import Figure, NotMeasured, mean_figure
from t2i.evaluation.instruments import Pixels, extract
from t2i.evaluation.subject import Subject

FEW_PROMPTS = 10


def cosine_distance(features: Tensor) -> float:
    """Mean of 1 − cos over all pairs of rows, (N, d) with N >= 2; 0...2, 0 where all point the same way."""
    unit = torch.nn.functional.normalize(features, dim=1)
    upper = torch.triu_indices(len(unit), len(unit), offset=1)
    return float((1 - (unit @ unit.T)[upper[0], upper[1]]).mean())


def root_mean_square_distance(pixels: Tensor) -> float:
    """Mean over all pairs of rows of their root mean square difference, (N, d) with N >= 2; 0...1."""
    return float(torch.nn.functional.pdist(pixels).mean()) / pixels.shape[1] ** 0.5


def measure_diversity(subject: Subject) -> list[Figure]:
    """Pairwise distance within each prompt, averaged over prompts: in features, and in pixels."""
    groups = [rows for rows in subject.groups().values() if len(rows) > 1]
    if not groups:
        raise NotMeasured("no prompt has two pictures (--num-images 2 or more)")
    pixels = Pixels()
    in_features = [cosine_distance(subject.features[rows]) for rows in groups]
    in_pixels = [
        root_mean_square_distance(extract(pixels, [subject.pictures[row].file for row in rows]))
        for rows in groups
    ]
    each = "mean over the pairs of pictures of one prompt"
    warning = f"only {len(groups)} prompts have two pictures or more" if len(groups) < FEW_PROMPTS else ""
    return [
        mean_figure(
            "diversity", in_features, subject.rounds, counted="prompts", better="higher", warning=warning,
            how=f"1 - cosine, {each}, on {subject.instruments.extractor.described}",
        ),
        mean_figure(
            "diversity in pixels", in_pixels, subject.rounds, counted="prompts", better="higher",
            how=f"root mean square difference (0...1), {each}, on {pixels.described}",
        ),
    ]  # fmt: skip
