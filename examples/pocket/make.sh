#!/usr/bin/env bash
# From nothing to the weights of pocket: render, train three stages, evaluate.
#
#   examples/pocket/make.sh [--quick | --v1 | --v1-large] [FOLDER]
#
# Without an option: version 0, which is in the package. --v1: version 1 at 64 pixels, for a CPU. --v1-large: the same
# at 128 pixels with larger networks, for a GPU. --quick: ten glyphs that are in the repository at 32 pixels, minutes on
# two cores; it goes through everything, and no figure is promised of it yet.
#
# Needs t2i installed; all but --quick also the Debian package fonts-noto-color-emoji, or FONT=PATH of that font.
# TRAIN_OPTIONS="--num-processes 2 --compile" uses a CPU with two cores best.
#
# Killed or stopped at any moment, run it again: each stage goes on from its newest checkpoint. So
# `timeout --signal INT 9m examples/pocket/make.sh --v1-large` does what can be done in nine minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kind=v0
case ${1:-} in
  --quick | --v1 | --v1-large) kind=${1#--} && shift ;;
  -*) echo "make.sh: $1: only --quick, --v1 and --v1-large are known" >&2 && exit 2 ;;
esac
folder=${1:-runs/pocket-$kind}
python=${PYTHON:-python3}

t2i() { "$python" -m t2i "$@"; }

render() { # render OPTIONS...: once
  [ -f "$folder/data/scenes.jsonl" ] || "$python" "$here/render.py" "$folder/data" --seed 0 "$@"
}

train() { # train STAGE OPTIONS...: continue where there is a checkpoint, skip what is done
  local stage=$1 options=${TRAIN_OPTIONS:-}
  shift
  [ "$stage" = clip ] && options=${options//--compile/} # there is nothing to compile, and it would be refused
  [ -f "$folder/$stage/done.json" ] && return
  local resume=()
  [ -n "$(ls -A "$folder/$stage/checkpoints" 2>/dev/null)" ] && resume=(--resume latest)
  # shellcheck disable=SC2086 # a list of words
  t2i train --dataset "$folder/data" -o "$folder" --method "$stage" "$@" $options "${resume[@]}"
}

channels() { # channels OPTION WIDTH...: an option once for each width
  local option=$1 width
  shift
  for width in "$@"; do printf '%s %s ' "$option" "$width"; done
}

# How noise levels are drawn: places and numbers are decided where there is much noise.
noise=(--snr-gamma 0 --timestep-sampling logit_normal --logit-mean 0.5 --logit-std 1.4)
# How the UNet learns: the text encoder with it, since a contrastive one alone tends to a bag of words.
unet=("${noise[@]}" --train-text-encoder --save-dtype fp16 --optimizer muon --learning-rate 0.001)
prompts=(--sample-prompts "a corgi playing a trumpet" --sample-prompts "a teddy bear riding a skateboard in the city"
  --sample-prompts "a red dragon wearing a crown at night" --sample-prompts "three apples on a blue background"
  --sample-prompts "a red car to the left of a green cup" --sample-prompts "a cat on the beach"
  --sample-prompts "a guitar" --sample-prompts "a rabbit below a cake")

# shellcheck disable=SC2046 # lists of words
case $kind in
  quick)
    render --mixture quick --scenes 4000 --size 32 --font "$here/../../tests/pocket/ten-glyphs.ttf"
    few=(--resolution 32 --sample-steps 100000 --report-to none)
    train vae "${few[@]}" $(channels --vae-channels 24 48) --batch-size 32 --kl-weight 0.0001 --steps 500 \
      --learning-rate 0.003 --lr-warmup-steps 20 --lr-decay 0.5 --ema-decay 0.98
    train clip "${few[@]}" --batch-size 64 --steps 60 --learning-rate 0.001 --lr-warmup-steps 10 --ema-decay 0.9
    train unet "${few[@]}" "${noise[@]}" $(channels --unet-channels 64 128) --batch-size 64 --steps 700 \
      --learning-rate 0.002 --lr-warmup-steps 30 --lr-decay 0.5 --ema-decay 0.98 --train-text-encoder \
      --memorisation-samples 0
    things="dog cat rabbit panda trumpet guitar car bicycle rose"
    for thing in $things; do
      for colour in red blue green white black; do echo "a $thing on a $colour background"; done
    done >"$folder/prompts.txt"
    t2i eval "$folder/model" --prompts "$folder/prompts.txt" --num-images 2 -o "$folder/eval" --overwrite
    ;;
  v1)
    render --mixture v1 --scenes 160000 --size 64 ${FONT:+--font "$FONT"}
    train vae --resolution 64 $(channels --vae-channels 16 32 128) --vae-crop 32 --batch-size 32 --kl-weight 0.0001 \
      --steps "${VAE_STEPS:-40000}" --learning-rate 0.001 --lr-decay 0.5 --ema-decay 0.99 --checkpointing-steps 250
    train clip --resolution 64 --batch-size 128 --steps 260 --learning-rate 0.001 --lr-warmup-steps 50 \
      --ema-decay 0.99 --checkpointing-steps 100
    train unet "${unet[@]}" "${prompts[@]}" --resolution 64 $(channels --unet-channels 64 128 192) --batch-size 128 \
      --steps "${UNET_STEPS:-15000}" --lr-warmup-steps 200 --lr-decay 0.3 --ema-decay 0.999 --checkpointing-steps 250
    ;;
  v1-large)
    render --mixture v1 --scenes 160000 --size 128 ${FONT:+--font "$FONT"}
    train vae --resolution 128 $(channels --vae-channels 24 48 96 192) --latent-channels 8 --batch-size 64 \
      --vae-crop 64 --kl-weight 0.0003 --steps "${VAE_STEPS:-12000}" --learning-rate 0.001 --lr-decay 0.4 \
      --ema-decay 0.995 --checkpointing-steps 1000 --sample-steps 2000
    train clip --resolution 128 --batch-size 256 --steps 800 --learning-rate 0.001 --lr-warmup-steps 50 \
      --ema-decay 0.99 --checkpointing-steps 400
    train unet "${unet[@]}" "${prompts[@]}" --resolution 128 $(channels --unet-channels 64 128 224) --batch-size 512 \
      --latent-weighting decoder --steps "${UNET_STEPS:-10000}" --lr-warmup-steps 200 --lr-decay 0.3 \
      --ema-decay 0.999 --checkpointing-steps 500 --sample-steps 1000
    ;;
  v0)
    render --scenes 60000 --size 64 ${FONT:+--font "$FONT"}
    train vae --resolution 64 $(channels --vae-channels 16 32 128) --batch-size 16 --steps 3000 \
      --learning-rate 0.0015 --ema-decay 0.995 --checkpointing-steps 250
    train clip --resolution 64 --batch-size 128 --steps 260 --learning-rate 0.001 --lr-warmup-steps 50 \
      --ema-decay 0.99 --checkpointing-steps 100
    train unet "${noise[@]}" --resolution 64 --batch-size 64 --steps "${UNET_STEPS:-15000}" --learning-rate 0.001 \
      --lr-warmup-steps 200 --lr-decay 0.3 --ema-decay 0.999 --train-text-encoder --checkpointing-steps 250 \
      --save-dtype fp16 --sample-prompts "a corgi playing a trumpet" --sample-prompts "a dog on a red background" \
      --sample-prompts "a bear riding a bicycle" --sample-prompts "an apple to the left of a banana"
    ;;
esac

case $kind in
  v0) "$python" "$here/evaluate.py" --model "$folder/model" --output "$folder/report.json" ;;
  v1*) t2i eval "$folder/model" --prompts pocket-v1 --num-images 4 --reference "$folder/data" -o "$folder/eval" \
    --overwrite ;;
esac
[ "$kind" = quick ] || echo "the model is in $folder/model; to ship it: cp -r $folder/model/. t2i/assets/pocket/"
