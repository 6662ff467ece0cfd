#!/usr/bin/env bash
# From nothing to the weights of pocket: render, train three stages, evaluate, copy into the package.
#
#   examples/pocket/make.sh [FOLDER]      needs t2i installed and the Debian package fonts-noto-color-emoji
#
# UNET_OPTIONS="--num-processes 2 --compile" is how to train the UNet fastest on a CPU with two cores.
# Killed or stopped at any moment, run it again: each stage goes on from its newest checkpoint.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-runs/pocket}
python=${PYTHON:-python3}
t2i=${T2I:-t2i}

[ -f "$folder/data/scenes.jsonl" ] || "$python" "$here/render.py" "$folder/data" --scenes 60000 --size 64 --seed 0

train() { # train STAGE OPTIONS...: continue where there is a checkpoint, skip what is done
  local stage=$1
  shift
  [ -f "$folder/$stage/done.json" ] && return
  local resume=()
  [ -n "$(ls -A "$folder/$stage/checkpoints" 2>/dev/null)" ] && resume=(--resume latest)
  "$t2i" train --dataset "$folder/data" -o "$folder" --method "$stage" --resolution 64 "$@" "${resume[@]}"
}

train vae --vae-channels 16 --vae-channels 32 --vae-channels 128 --batch-size 16 --steps 3000 \
  --learning-rate 0.0015 --ema-decay 0.995 --checkpointing-steps 250
train clip --batch-size 128 --steps 260 --learning-rate 0.001 --lr-warmup-steps 50 --ema-decay 0.99 \
  --checkpointing-steps 100
train unet --batch-size 64 --steps "${UNET_STEPS:-15000}" --learning-rate 0.001 --lr-warmup-steps 200 \
  --lr-decay 0.3 --ema-decay 0.999 --train-text-encoder --checkpointing-steps 250 --save-dtype fp16 \
  --snr-gamma 0 --timestep-sampling logit_normal --logit-mean 0.5 --logit-std 1.4 ${UNET_OPTIONS:-} \
  --sample-prompts "a corgi playing a trumpet" --sample-prompts "a dog on a red background" \
  --sample-prompts "a bear riding a bicycle" --sample-prompts "an apple to the left of a banana"

"$python" "$here/evaluate.py" --model "$folder/model" --output "$folder/report.json"
echo "the model is in $folder/model; to ship it: cp -r $folder/model/. t2i/assets/pocket/"
