"""What goes together where a ControlNet steers: folder, picture, scale, kind, shape of the picture."""

from __future__ import annotations

from t2i.errors import UsageError

CONTROL_KINDS = ("edges",)
LARGEST_CONTROL_SCALE = 10.0
MOST_STRETCHED = 0.02  # share by which the aspect ratios of control picture and picture may differ


def check_controls(
    controlnet: str | None, control_image: str | None, control_scale: float, control_kind: str | None
) -> None:
    """Refuse a ControlNet without its picture, and the other way round.

    Raises:
        UsageError: Naming what is missing.
    """
    if controlnet is not None and control_image is None:
        raise UsageError(
            f"--controlnet {controlnet}: there is no picture for it to follow",
            "give one with --control-image",
        )
    if controlnet is None and control_image is not None:
        raise UsageError(
            f"--control-image {control_image}: there is no ControlNet to read it",
            "name its folder with --controlnet",
        )
    if controlnet is None and (control_scale != 1.0 or control_kind is not None):
        given = "--control-kind" if control_kind is not None else "--control-scale"
        raise UsageError(f"{given}: there is no ControlNet", "name its folder with --controlnet")


def check_control_shape(name: str, size: tuple[int, int], width: int, height: int) -> None:
    """Refuse a control picture that would have to be stretched, or cut, to lie over the picture.

    Args:
        name: Of the control picture, for the message.
        size: Its width and height, pixels.
        width: Of the picture that is drawn, pixels.
        height: The same.

    Raises:
        UsageError: The aspect ratios differ by more than `MOST_STRETCHED`.
    """
    ratio = size[0] / size[1] / (width / height)
    if not 1 / (1 + MOST_STRETCHED) <= ratio <= 1 + MOST_STRETCHED:
        raise UsageError(
            f"--control-image {name} is {size[0]}x{size[1]}, another shape than the {width}x{height} to draw",
            "cut it to that shape, or draw in its shape with --size",
        )
