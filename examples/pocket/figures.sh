#!/usr/bin/env bash
# Every figure and grid of pocket's model card: about 45 minutes on two cores.
#
#   examples/pocket/figures.sh [FOLDER]
#
# FOLDER/NAME/report.json and report.html of: pocket (its suite, four seeds), true (renderings of the suite: what a
# perfect model would draw), noise (pictures without a meaning), steps and guidance (curves over 90 and 60 of the
# prompts). Distances are to the renderings in FOLDER/true-0; CMMD is taken on a CLIP that learns from fresh scenes
# here. Needs t2i and the Debian package fonts-noto-color-emoji, or FONT=PATH of that font.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-runs/figures}
python=${PYTHON:-python3}

t2i() { "$python" -m t2i "$@"; }

measure() { # measure NAME OPTIONS...: once
  [ -f "$folder/$1/report.html" ] || t2i eval "${@:2}" -o "$folder/$1" --overwrite
}

for seed in 0 1; do
  [ -f "$folder/true-$seed/metadata.jsonl" ] ||
    "$python" "$here/render_suite.py" "$folder/true-$seed" --copies 4 --size 64 --seed "$seed" ${FONT:+--font "$FONT"}
done
if [ ! -f "$folder/noise-0/metadata.jsonl" ]; then # the same names and prompts, pixels without a meaning
  rm -rf "$folder/noise-0.part"
  cp -r "$folder/true-1" "$folder/noise-0.part"
  "$python" - "$folder/noise-0.part" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

values = np.random.default_rng(0)
for path in sorted(Path(sys.argv[1]).glob("*.png")):
    Image.fromarray(values.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
PYTHON
  mv "$folder/noise-0.part" "$folder/noise-0"
fi
if [ ! -f "$folder/clip/clip/done.json" ]; then
  [ -f "$folder/scenes/metadata.jsonl" ] ||
    "$python" "$here/render.py" "$folder/scenes" --scenes 20000 --size 64 --seed 2 ${FONT:+--font "$FONT"}
  t2i train --dataset "$folder/scenes" -o "$folder/clip" --method clip --resolution 64 --batch-size 128 --steps 260 \
    --learning-rate 0.001 --lr-warmup-steps 50 --ema-decay 0.99 --overwrite
fi

shared=(--reference "$folder/true-0" --clip "$folder/clip/parts/clip")
measure pocket pocket --prompts pocket --num-images 4 "${shared[@]}"
measure true --images "$folder/true-1" "${shared[@]}"
measure noise --images "$folder/noise-0" "${shared[@]}"
few=(--prompts pocket --reference "$folder/true-0" --validation-rows 0)
measure steps pocket "${few[@]}" --limit 90 --num-images 1 --sweep scheduler=ddpm,ddim,dpm++2m,unipc --sweep steps=5,10,20,50
measure guidance pocket "${few[@]}" --limit 60 --num-images 2 --sweep guidance-scale=1,2,4,7,10

t2i generate "a corgi playing a trumpet" -N 9 --seed 0 --grid --overwrite -o "$folder/grids/"
t2i generate "a teddy bear riding a skateboard in the city" -N 9 --seed 0 --grid --overwrite -o "$folder/grids/"
t2i generate "a red dragon wearing a crown at night" -N 9 --seed 0 --grid --overwrite -o "$folder/grids/"
