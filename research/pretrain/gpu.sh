#!/usr/bin/env bash
# The whole pre-training on one GPU, in about ten minutes: gpu.sh WORK TEACHER MINUTES. WORK holds what prepare.py wrote;
# the weights stay there, and in half precision, in pieces of 15 MB, in WORK/out.
set -eu
work=$1 teacher=$2 minutes=$3
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=true OMP_NUM_THREADS=4 HF_HUB_OFFLINE=1
python3 -m research.pretrain.encoder --teacher "$teacher" --work "$work" --minutes "${ENCODER_MINUTES:-1.3}"
python3 -m research.pretrain.intent --work "$work"
export TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
python3 -m research.pretrain.generator --work "$work" --minutes "$minutes"
mkdir -p "$work/out"
python3 - "$work" <<'E2'
import sys, torch
work = sys.argv[1]
for name in ("encoder", "intent", "generator"):
    state = torch.load(f"{work}/{name}.pt", weights_only=True, map_location="cpu")
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, f"{work}/out/{name}.half.pt")
E2
cp "$work/log.jsonl" "$work/out/"
cd "$work/out" && split -b 15M -d generator.half.pt generator.half.pt. && rm generator.half.pt
touch "$work/done"
