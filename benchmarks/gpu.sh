#!/usr/bin/env bash
# Measures everything on the accelerator at hand, and writes JSON to benchmarks/results/NAME/:
#
#     benchmarks/gpu.sh DATA NAME          # DATA holds train/CLASS/IMAGE and val/CLASS/IMAGE; labels serve the probes only
#     SMALL=1 benchmarks/gpu.sh DATA NAME  # the demo's sizes, to see on a CPU that it works
#
# The step (float32 and bfloat16, several batches, beside PyTorch's ResNet-50), the input pipeline, the loop, a probe's time,
# and then EPOCHS epochs of pre-training with a probe each: SimFLE, BYOL alone, random masking, the constant start of the
# grouping, and a trunk trained on the labels. PYTHON names the interpreter.
set -euo pipefail
data=$(realpath "$1") name=$2
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=benchmarks/results/$name runs=runs/$name
mkdir -p "$out" "$runs"

if [ -n "${SMALL:-}" ]; then
    config=configs/demo.py batches=(32) dtypes=(float32) training=float32 batch=32 epochs=${EPOCHS:-1} rounds=3 steps=100
    pipeline=(--size 40 --rounds 1 --seconds 0.5) probe=(--size 40 --limit 200 --measured-epochs 1)
else
    config=configs/simfle.py batches=(64 256 512) dtypes=(float32 bfloat16) training=bfloat16 batch=256 epochs=${EPOCHS:-20}
    rounds=10 steps=200 pipeline=(--threads "$(nproc)") probe=()
fi

for size in "${batches[@]}"; do
    for dtype in "${dtypes[@]}"; do
        # One size that does not fit must not stop the others. PyTorch, in a process beside, needs memory too.
        XLA_PYTHON_CLIENT_PREALLOCATE=false "$python" benchmarks/train_step.py --config "$config" --batch-size "$size" --dtype "$dtype" --rounds "$rounds" --json \
            > "$out/step_${dtype}_$size.json" || echo "no result for $dtype at batch $size"
    done
done
"$python" benchmarks/train_step.py --config "$config" --batch-size "$batch" --first-step --json > "$out/first_step.json"
"$python" benchmarks/input_pipeline.py --images "$data/train" "${pipeline[@]}" --json > "$out/input_pipeline.json"
"$python" benchmarks/loop.py --images "$data/train" --config "$config" --batch-size "$batch" --dtype "$training" \
    --steps "$steps" --json > "$out/loop.json"
"$python" benchmarks/probe.py --data "$data" "${probe[@]}" --json > "$out/probe.json"

train() { # METHOD FLAGS...: pre-trains, then probes
    local method=$1
    shift
    "$python" train.py --config="$config" --config.data.path="$data/train" --config.epochs="$epochs" \
        --config.batch_size="$batch" --config.dtype="$training" --workdir="$runs/$method" "$@"
    "$python" probe.py --config=configs/probe.py --config.protocol=cached --config.encoder="$runs/$method" \
        --config.data.path="$data" --workdir="$runs/$method-probe"
    cp "$runs/$method-probe/results.json" "$out/$method.json"
    tail -n 1 "$runs/$method/metrics.jsonl" > "$out/$method-last-step.json"
}
train simfle
train byol --config.method=byol
train random --config.facemae.masking=random
train constant --config.facemae.grouping_init=constant
"$python" benchmarks/supervised.py --config "$config" --data "$data" --workdir "$runs/supervised" \
    --batch-size "$batch" --epochs "$epochs" > "$out/supervised.json"
echo "results are in $out"
