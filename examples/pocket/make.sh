#!/usr/bin/env bash
# From nothing to the weights of pocket: render, train three stages, evaluate.
#
#   examples/pocket/make.sh [--quick | --large] [FOLDER]
#
# Without an option: 64 pixels, for a CPU. --large: 128 pixels with larger networks, for a GPU. --quick: ten glyphs that
# are in the repository on four colours at 32 pixels, with the autoencoder of the package to begin with: every stage in
# three minutes on two cores, and an evaluation that fails unless half of the things can be told, also on their colours,
# and three in four backgrounds are right.
#
# START=FOLDER (with neither option) grows out of an earlier pocket: its autoencoder and its UNet are trained on, and so
# are the words that the new captions have too.
#
# Needs t2i installed; all but --quick also the Debian package fonts-noto-color-emoji, or FONT=PATH of that font.
# TRAIN_OPTIONS=--compile uses a CPU best: batches of 128 in one process on two cores are 80 pictures a second, 140
# where there is AMX. (Batches of 64 with --num-processes 2 were 50 instead of the 80: each process then steps through
# Muon by itself, and gradients are exchanged.)
#
# Killed or stopped at any moment, run the same again: each stage goes on from its newest checkpoint (there is none
# within the short stages of --quick, which begin anew). So
# `timeout --signal INT 9m examples/pocket/make.sh --large` does what can be done in nine minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kind=pocket
case ${1:-} in
  --quick | --large) kind=${1#--} && shift ;;
esac
case $#${1:-} in
  0 | 1[!-]*) ;;
  *) echo "make.sh: $*: only --quick or --large, then one folder, are known" >&2 && exit 2 ;;
esac
folder=${1:-runs/$kind}
python=${PYTHON:-python3}
start=${START:-}
[ -z "$start" ] || [ "$kind" = pocket ] || { echo "make.sh: START goes with neither --quick nor --large" >&2 && exit 2; }
mkdir -p "$folder"
[ -f "$folder/start.txt" ] || echo "$start" >"$folder/start.txt"
[ "$(cat "$folder/start.txt")" = "$start" ] ||
  { echo "make.sh: $folder was begun with START=$(cat "$folder/start.txt"); name another folder" >&2 && exit 2; }

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
unet=("${noise[@]}" --train-text-encoder --save-dtype fp16 --optimizer muon)
prompts=(--sample-prompts "a corgi playing a trumpet" --sample-prompts "a teddy bear riding a skateboard in the city"
  --sample-prompts "a red dragon wearing a crown at night" --sample-prompts "three apples on a blue background"
  --sample-prompts "a red car to the left of a green cup" --sample-prompts "a cat on the beach"
  --sample-prompts "a guitar" --sample-prompts "a rabbit below a cake")

# shellcheck disable=SC2046 # lists of words
case $kind in
  quick)
    render --mixture quick --scenes 3000 --size 32 --font "$here/../../tests/pocket/ten-glyphs.ttf"
    few=(--resolution 32 --sample-steps 100000 --checkpointing-steps 100000 --report-to none)
    train vae "${few[@]}" --model "$here/../../t2i/assets/pocket" --batch-size 16 --steps 10 --learning-rate 0.0003 --kl-weight 0.0001
    train clip "${few[@]}" --batch-size 64 --steps 20 --learning-rate 0.001 --lr-warmup-steps 5 --ema-decay 0.9
    train unet "${few[@]}" "${unet[@]}" $(channels --unet-channels 48 96) --batch-size 64 --steps 340 \
      --learning-rate 0.002 --lr-warmup-steps 20 --lr-decay 0.6 --ema-decay 0.97 \
      --validation-steps 100000 --memorisation-samples 0
    "$python" "$here/suite.py" --ten "$folder/prompts.jsonl"
    t2i eval "$folder/model" --prompts "$folder/prompts.jsonl" --num-images 2 -o "$folder/eval" --overwrite \
      --require "single object>=50%" --require "colours>=50%" --require "backgrounds right>=75%"
    ;;
  pocket)
    render --scenes 100000 --size 64 ${FONT:+--font "$FONT"}
    vae=($(channels --vae-channels 16 32 128))
    [ -n "$start" ] && vae=(--model "$start")
    train vae "${vae[@]}" --resolution 64 --vae-crop 32 --batch-size 32 --kl-weight 0.0001 \
      --steps "${VAE_STEPS:-40000}" --learning-rate 0.001 --lr-decay 0.5 --ema-decay 0.99 --checkpointing-steps 250
    if [ -n "$start" ]; then
      [ -d "$folder/start" ] ||
        "$python" "$here/grow.py" --old "$start" --vae "$folder/parts/vae" --data "$folder/data" -o "$folder/start"
      unet+=(--model "$folder/start")
    else
      train clip --resolution 64 --batch-size 128 --steps 260 --learning-rate 0.001 --lr-warmup-steps 50 \
        --ema-decay 0.99 --checkpointing-steps 100
      unet+=($(channels --unet-channels 64 128 192))
    fi
    train unet "${unet[@]}" "${prompts[@]}" --resolution 64 --batch-size 128 --steps "${UNET_STEPS:-10000}" \
      --learning-rate 0.0014 --lr-decay 0.3 --lr-warmup-steps 100 --ema-decay 0.998 --checkpointing-steps 200
    ;;
  large)
    render --scenes 160000 --size 128 ${FONT:+--font "$FONT"}
    train vae --resolution 128 $(channels --vae-channels 24 48 96 192) --latent-channels 8 --batch-size 64 \
      --vae-crop 64 --kl-weight 0.0003 --steps "${VAE_STEPS:-12000}" --learning-rate 0.001 --lr-decay 0.4 \
      --ema-decay 0.995 --checkpointing-steps 1000 --sample-steps 2000
    train clip --resolution 128 --batch-size 256 --steps 800 --learning-rate 0.001 --lr-warmup-steps 50 \
      --ema-decay 0.99 --checkpointing-steps 400
    train unet "${unet[@]}" "${prompts[@]}" --resolution 128 $(channels --unet-channels 64 128 224) --batch-size 512 \
      --learning-rate 0.001 --lr-decay 0.3 --latent-weighting decoder --steps "${UNET_STEPS:-10000}" --lr-warmup-steps 200 --ema-decay 0.999 \
      --checkpointing-steps 500 --sample-steps 1000
    ;;
esac

if [ "$kind" != quick ]; then
  t2i eval "$folder/model" --prompts pocket --num-images 4 --reference "$folder/data" -o "$folder/eval" --overwrite
  echo "the model is in $folder/model; to ship it: cp -r $folder/model/. t2i/assets/pocket/"
fi
