"""How predictions with and without the prompt combine. Knows no network and no scheduler."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from t2i.errors import UsageError


def classifier_free_guidance(cond: Tensor, uncond: Tensor, guidance_scale: float) -> Tensor:
    """Move the prediction away from the unconditional one: ε_u + w (ε_c − ε_u).

    Args:
        cond: Model output given the prompt, (B, C, h, w).
        uncond: Model output given the negative prompt, same shape and dtype.
        guidance_scale: w in the source, unitless, at least 1. 1 is off and returns `cond` itself.
            Ho & Salimans (2022, arXiv:2207.12598) count from 0: their w is this one minus 1.

    Returns:
        Guided output, (B, C, h, w), of the same prediction type as the inputs. All channels are guided.

    Raises:
        UsageError: `guidance_scale` is below 1 or not a number.

    Source: Saharia et al. 2022, arXiv:2205.11487, eq. (2).
    """
    if not guidance_scale >= 1:
        raise UsageError(
            f"--guidance-scale {guidance_scale}: must be at least 1",
            "1 is off; below it the prompt would count less than no prompt",
        )
    if guidance_scale == 1:
        return cond
    return uncond + guidance_scale * (cond - uncond)


def guidance_by_row(cond: Tensor, uncond: Tensor, guidance_scales: Sequence[float]) -> Tensor:
    """`classifier_free_guidance` with a scale for each picture of a batch; every row has the same bits.

    Args:
        cond: Model output given the prompts, (B, C, h, w).
        uncond: Model output given the negative prompts, same shape and dtype.
        guidance_scales: B numbers, each above 1.

    Returns:
        Guided output, (B, C, h, w).

    Raises:
        UsageError: A scale is not above 1: such a row has no unconditional side.
    """
    if len(set(guidance_scales)) == 1:
        return classifier_free_guidance(cond, uncond, guidance_scales[0])
    if not all(scale > 1 for scale in guidance_scales):
        raise UsageError(f"guidance scales {[*guidance_scales]}: pictures of one batch need them above 1")
    # A number times a half-precision tensor is computed in fp32 and rounded once: so here, too.
    scales = torch.tensor(guidance_scales, dtype=torch.float32, device=cond.device)
    scales = scales.to(torch.promote_types(torch.float32, cond.dtype)).view(-1, *[1] * (cond.ndim - 1))
    return uncond + (scales * (cond - uncond)).to(cond.dtype)
