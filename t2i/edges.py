"""Edges of a picture: thin white lines on black, as a ControlNet for edges reads them.

The steps of Canny 1986 (doi:10.1109/TPAMI.1986.4767851): smooth, take the gradient, keep its ridges, keep the
weak parts of a ridge only where they hang on a strong one.
"""

from __future__ import annotations

import numpy as np

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SMOOTHING = np.array([1, 4, 6, 4, 1], np.float32) / 16  # binomial, nearly a Gaussian of standard deviation 1
WEAK, STRONG = 0.08, 0.16  # of the steepest gradient that a picture can have


def edges(pixels: np.ndarray) -> np.ndarray:
    """Lines one pixel wide where brightness changes most.

    Args:
        pixels: uint8, (3, H, W) with H and W of at least 5.

    Returns:
        uint8, (3, H, W), 255 on a line and 0 elsewhere, the three channels alike.
    """
    brightness = np.tensordot(np.array(LUMA, np.float32), pixels.astype(np.float32) / 255, 1)  # (H, W)
    smooth = _along(_along(brightness, SMOOTHING, 0), SMOOTHING, 1)
    across, down = _slopes(smooth)
    steepness = np.hypot(across, down)
    ridge = np.where(_is_ridge(steepness, across, down), steepness, 0)
    lines = _connected(ridge > STRONG, ridge > WEAK)
    return np.repeat(lines[None].astype(np.uint8) * 255, 3, axis=0)


def _along(values: np.ndarray, kernel: np.ndarray, axis: int) -> np.ndarray:
    """Correlation with an odd kernel along one axis; borders repeat their last value."""
    reach = len(kernel) // 2
    padding = [(reach, reach) if number == axis else (0, 0) for number in range(values.ndim)]
    padded = np.pad(values, padding, mode="edge")
    length = values.shape[axis]
    total = np.zeros_like(values)
    for k, weight in enumerate(kernel):
        total += weight * padded.take(range(k, k + length), axis)
    return total


def _slopes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients to the right and downwards by Sobel's kernels; 1 is a jump from black to white."""
    step, beside = np.array([-1, 0, 1], np.float32), np.array([1, 2, 1], np.float32) / 4
    return _along(_along(values, step, 1), beside, 0), _along(_along(values, step, 0), beside, 1)


def _is_ridge(steepness: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Where a pixel is steeper than its two neighbours along the gradient, of eight directions the nearest.

    Of two equal neighbours the first counts, so that a line is one pixel wide.
    """
    height, width = steepness.shape
    padded = np.pad(steepness, 1)
    direction = np.round(np.arctan2(down, across) / (np.pi / 4)).astype(int) % 4
    ridge = np.zeros(steepness.shape, bool)
    for number, (x, y) in enumerate(((1, 0), (1, 1), (0, 1), (-1, 1))):
        ahead = padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]
        behind = padded[1 - y : 1 - y + height, 1 - x : 1 - x + width]
        ridge |= (direction == number) & (steepness > behind) & (steepness >= ahead)
    return ridge


def _connected(strong: np.ndarray, weak: np.ndarray) -> np.ndarray:
    """The weak pixels from which a strong one can be reached over weak ones, eight neighbours each."""
    height, width = weak.shape
    reached = strong
    while True:
        padded = np.pad(reached, 1)
        grown = weak & np.any(
            [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0
        )
        if np.array_equal(grown, reached):
            return reached
        reached = grown
