#!/usr/bin/env bash
# From nothing to the weights of pocket: render, train three stages, evaluate.
#
#   examples/pocket/make.sh [--quick] [FOLDER]
#
# Needs t2i installed with its tests' extra (pip install ".[test]") and the Debian package fonts-noto-color-emoji;
# for figures of version 1 also its recogniser (train_recogniser.py). With a CPU of two cores it takes a working
# day; TRAIN_OPTIONS="--num-processes 2 --compile" is how to use them best.
#
# --quick does all of it with ten glyphs that are in the repository, at 32 pixels, in three minutes, and ends
# with exit code 1 where the model does not reach the figures below.
#
# Killed or stopped at any moment, run it again: each stage goes on from its newest checkpoint.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
quick=
[ "${1:-}" = --quick ] && { quick=yes; shift; }
folder=${1:-runs/pocket${quick:+-quick}}
python=${PYTHON:-python3}
t2i=${T2I:-"$python -m t2i"}

render() { # render OPTIONS...: once
  [ -f "$folder/data/scenes.jsonl" ] || "$python" "$here/render.py" "$folder/data" --seed 0 "$@"
}

train() { # train STAGE OPTIONS...: continue where there is a checkpoint, skip what is done
  local stage=$1
  shift
  [ -f "$folder/$stage/done.json" ] && return
  local resume=()
  [ -n "$(ls -A "$folder/$stage/checkpoints" 2>/dev/null)" ] && resume=(--resume latest)
  # shellcheck disable=SC2086 # both are lists of words
  $t2i train --dataset "$folder/data" -o "$folder" --method "$stage" "$@" ${TRAIN_OPTIONS:-} "${resume[@]}"
}

# How noise levels are drawn: places and numbers are decided where there is much noise.
noise=(--snr-gamma 0 --timestep-sampling logit_normal --logit-mean 0.5 --logit-std 1.4)

if [ -n "$quick" ]; then
  render --mixture quick --scenes 4000 --size 32 --font "$here/../../tests/pocket/ten-glyphs.ttf"
  few=(--resolution 32 --sample-steps 100000 --memorisation-samples 0 --report-to none)
  train vae "${few[@]}" --vae-channels 16 --vae-channels 32 --vae-channels 64 --batch-size 32 --steps 500 \
    --learning-rate 0.003 --lr-warmup-steps 20 --lr-decay 0.5 --ema-decay 0.98 --kl-weight 0.0001
  train clip --resolution 32 --sample-steps 100000 --report-to none --batch-size 64 --steps 60 \
    --learning-rate 0.001 --lr-warmup-steps 10 --ema-decay 0.9
  train unet "${few[@]}" "${noise[@]}" --unet-channels 64 --unet-channels 128 --batch-size 64 --steps 700 \
    --learning-rate 0.002 --lr-warmup-steps 30 --lr-decay 0.5 --ema-decay 0.98 --train-text-encoder
  "$python" - "$folder/prompts.txt" <<'PROMPTS'
import sys
print(*(f"a {thing} on a {colour} background" for thing in ("dog", "cat", "car", "rose", "guitar", "panda")
        for colour in ("red", "blue", "green", "white", "black")), sep="\n", file=open(sys.argv[1], "w"))
PROMPTS
  # shellcheck disable=SC2086
  $t2i eval "$folder/model" --prompts "$folder/prompts.txt" --num-images 4 -o "$folder/eval" --overwrite \
    --require "single object>=60%" --require "colours>=60%"
  exit
fi

render --mixture v1 --scenes 160000 --size 64
train vae --resolution 64 --vae-channels 16 --vae-channels 32 --vae-channels 128 --batch-size 32 --vae-crop 32 \
  --kl-weight 0.0001 --steps 12000 --learning-rate 0.001 --ema-decay 0.99 --lr-decay 0.5 --checkpointing-steps 250
