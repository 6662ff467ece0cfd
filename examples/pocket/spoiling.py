"""Owns how renderings are spoilt for the recogniser, so that it also knows what a model draws a little wrong.

Soft edges, blotches, wobbling outlines, faults of compression, colours a little off (never so far that a
colour would be called otherwise). Nothing here knows what a picture shows, except where its things stand.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DESIGN_PX = 64  # the picture size for which lengths are written


def _uniform(like: Tensor, low: float, high: float) -> Tensor:
    return torch.rand(len(like), 1, 1, 1, device=like.device) * (high - low) + low


def move(pixels: Tensor, boxes: Tensor, wobble_px: float = 0) -> tuple[Tensor, Tensor]:
    """Turn up to 8 degrees, scale by 0.88...1.12, shift up to 3 px (at 64); centres and sizes follow.

    Args:
        pixels: (B, 3, side, side).
        boxes: (B, K, 5 or more): anything, x, y, width, height in px, anything.
        wobble_px: Most that any point is moved besides, px at 64: outlines wobble. The boxes ignore it.
    """
    count, device, half = len(pixels), pixels.device, pixels.shape[-1] / 2
    angle = _uniform(pixels, -8, 8).flatten() * math.pi / 180
    scale = _uniform(pixels, 0.88, 1.12).flatten()
    shift = (torch.rand(count, 2, device=device) * 2 - 1) * 3 / (DESIGN_PX / 2)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    forward = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    inverse = torch.linalg.inv(forward)
    # affine_grid asks where each output pixel comes from, so it wants the inverse.
    theta = torch.cat([inverse, -(inverse @ shift[:, :, None])], dim=2)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    if wobble_px:
        reach = _uniform(pixels, 0, wobble_px / (DESIGN_PX / 2))
        bent = (torch.rand(count, 2, 9, 9, device=device) * 2 - 1) * reach
        bent = F.interpolate(bent, grid.shape[1:3], mode="bilinear", align_corners=False)
        grid = grid + bent.permute(0, 2, 3, 1)
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    centre = boxes[..., 1:3] / half - 1
    centre = torch.einsum("bij,bkj->bki", forward, centre) + shift[:, None]
    centre = (centre + 1) * half
    size = boxes[..., 3:5] * scale[:, None, None]
    return moved, torch.cat([boxes[..., :1], centre, size, boxes[..., 5:]], dim=2)


def empty_some(pixels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn an eighth of the examples into pictures of nothing: half plain, half with shuffled tiles.

    Without them the judge names something in every picture, and colours alone would do as an answer.

    Returns:
        The pictures; the boxes, all 0 where nothing is left; and the rows of those.
    """
    pixels, boxes = pixels.clone(), boxes.clone()
    side = pixels.shape[-1]
    chosen = torch.randperm(len(pixels), device=pixels.device)[: max(2, len(pixels) // 8)]
    plain, shuffled = chosen.chunk(2)
    pixels[plain] = pixels[plain][:, :, :1, :1].expand(-1, -1, side, side)  # a corner's colour
    tiles = F.unfold(pixels[shuffled], side // 8, stride=side // 8)
    tiles = tiles[:, :, torch.randperm(tiles.shape[2], device=pixels.device)]
    pixels[shuffled] = F.fold(tiles, (side, side), side // 8, stride=side // 8)
    boxes[chosen] = 0
    return pixels, boxes, chosen


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian of `sigma` px."""
    reach = max(1, math.ceil(2 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pixels.device) / sigma) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    wide = F.conv2d(F.pad(pixels, (reach, reach, 0, 0), mode="replicate"), weights, groups=3)
    return F.conv2d(F.pad(wide, (0, 0, reach, reach), mode="replicate"), weights.transpose(2, 3), groups=3)


def coarsen(pixels: Tensor, size: int) -> Tensor:
    """Shrink to `size` px and enlarge again."""
    small = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, pixels.shape[-2:], mode="bicubic", align_corners=False)


def compress(pixels: Tensor, coarseness: float) -> Tensor:
    """Quantise the cosine coefficients of 8 x 8 blocks, high frequencies more, as JPEG does."""
    k = torch.arange(8.0, device=pixels.device)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    basis[0] /= math.sqrt(2)
    blocks = pixels.unfold(2, 8, 8).unfold(3, 8, 8)
    step = coarseness * (1 + k[None] + k[:, None])
    coefficients = (basis @ blocks @ basis.T / step).round() * step
    back = basis.T @ coefficients @ basis
    return back.transpose(3, 4).reshape(pixels.shape)


def spoil(pixels: Tensor) -> Tensor:
    """Make renderings look like generated pictures: soft, blotchy, a little off in colour.

    Args:
        pixels: (B, 3, side, side), -1...1, in random order (each eighth of the batch is spoilt in its own
            way, the last two least).

    Returns:
        Same shape, -1...1.
    """
    side = pixels.shape[-1]
    unit = side / DESIGN_PX
    parts = list(pixels.chunk(8))
    for index, part in enumerate(parts):
        if index in (0, 1, 2):
            parts[index] = blur(part, unit * (0.4 + 0.4 * index + 0.4 * float(torch.rand(()))))
        elif index in (3, 4):
            parts[index] = coarsen(part, round(unit * int(torch.randint(24, 52, ()))))
        elif index == 5:
            parts[index] = compress(part, 0.02 + 0.06 * float(torch.rand(())))
    pixels = torch.cat(parts)
    # Blotches: noise at an eighth and at half of the resolution, as a weak decoder leaves behind.
    coarse, fine = (
        torch.randn(len(pixels), 3, size, size, device=pixels.device) * _uniform(pixels, 0, 0.10)
        for size in (side // 8, side // 2)
    )
    fine += F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
    noise = F.interpolate(fine, pixels.shape[-2:], mode="bilinear", align_corners=False)
    noise += torch.randn_like(pixels) * _uniform(pixels, 0, 0.08)
    contrast = _uniform(pixels, 0.85, 1.15)
    tint = torch.rand(len(pixels), 3, 1, 1, device=pixels.device) * 2 - 1
    tint = tint * 0.08 + _uniform(pixels, -0.08, 0.08)
    return noise.add_(pixels).mul_(contrast).add_(tint).clamp_(-1, 1)
