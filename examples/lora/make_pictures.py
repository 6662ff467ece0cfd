"""Twenty pictures of a zorb, a striped thing that no model has seen, to try `t2i train` with.

python examples/lora/make_pictures.py zorbs
t2i train --dataset zorbs -o runs/zorb
t2i generate "a zorb on a red background" --lora runs/zorb/lora.safetensors
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, DRAWN = 64, 256  # pixels of a picture, and of the drawing that it is made smaller from
BACKGROUNDS = {
    "red": (214, 70, 62),
    "green": (92, 158, 84),
    "blue": (70, 110, 190),
    "yellow": (240, 208, 90),
    "gray": (150, 150, 150),
}
PLACES = ((0.5, 0.5, 0.36), (0.42, 0.55, 0.3), (0.58, 0.52, 0.32), (0.5, 0.58, 0.34))  # middle and radius
STRIPES, INK = ((255, 150, 30), (60, 30, 110)), (25, 15, 40)


def draw_zorb(
    background: tuple[int, int, int], middle_x: float, middle_y: float, radius: float
) -> Image.Image:
    """A round body in orange and purple stripes, one eye, two horns and two feet, (SIDE, SIDE).

    Args:
        background: Its colour.
        middle_x: Middle of the body, as a share of the width.
        middle_y: The same of the height.
        radius: Of the body, as a share of the width.
    """
    picture = Image.new("RGB", (DRAWN, DRAWN), background)
    pen = ImageDraw.Draw(picture)
    x, y, r = (round(share * DRAWN) for share in (middle_x, middle_y, radius))
    for side in (-1, 1):
        horn = [
            (x + side * r * 0.75, y - r * 0.55),
            (x + side * r * 0.3, y - r * 0.85),
            (x + side * r, y - r * 1.35),
        ]
        pen.polygon(horn, fill=STRIPES[1])
        foot = x + side * r * 0.45
        pen.ellipse((foot - r * 0.3, y + r * 0.8, foot + r * 0.3, y + r * 1.15), fill=INK)
    body = Image.new("L", (DRAWN, DRAWN))
    ImageDraw.Draw(body).ellipse((x - r, y - r, x + r, y + r), fill=255)
    stripes = Image.new("RGB", (DRAWN, DRAWN))
    brush = ImageDraw.Draw(stripes)
    for number in range(8):
        top = y - r + number * r / 4
        brush.rectangle((0, top, DRAWN, top + r / 4), fill=STRIPES[number % 2])
    picture.paste(stripes, mask=body)
    pen.ellipse((x - r * 0.4, y - r * 0.5, x + r * 0.4, y + r * 0.3), fill="white")
    pen.ellipse((x - r * 0.18, y - r * 0.28, x + r * 0.18, y + r * 0.08), fill=INK)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main(folder: Path) -> None:
    """Write the pictures and metadata.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (colour, place) in enumerate((colour, place) for colour in BACKGROUNDS for place in PLACES):
        name = f"{number:02d}.png"
        draw_zorb(BACKGROUNDS[colour], *place).save(folder / name)
        rows.append(json.dumps({"file_name": name, "text": f"a zorb on a {colour} background"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    print(f"{len(rows)} pictures in {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
