#!/usr/bin/env bash
# Measures on a GPU that is there for a quarter of an hour, in two calls of at most seven minutes:
#
#     benchmarks/gpu.sh first OUT DATA      # the step with its profile, laws, golden values, the same step in PyTorch's layers
#     benchmarks/gpu.sh second OUT DATA     # pre-training on DATA/train with probes, and the same for long as published
#     SMALL=1 benchmarks/gpu.sh ...         # the tests' sizes, to see on a CPU that it works
#
# DATA holds train/CLASS and val/CLASS. Either call is of use without the other. Every part has its own limit, leaves
# OUT/PART.json as soon as it knows something, and what it said in OUT/PART.log. The same call again does what is not complete.
# One part follows the other: compiling takes two minutes for a program of paper size, and longer for each where several do it
# side by side. `benchmarks/gpu_wheels.sh` collects the packages that a GPU image lacks. PYTHON names the interpreter, WORK a
# folder for runs and caches, CALL_SECONDS another length of the call and, in proportion, of its parts.
set -uo pipefail
usage="usage: benchmarks/gpu.sh first|second OUT DATA"
call=${1:?$usage} out=$(realpath -m "${2:?$usage}") data=$(realpath "${3:?$usage}")
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python3} work=$(realpath -m "${WORK:-runs/gpu}") call_seconds=${CALL_SECONDS:-420}
mkdir -p "$out" "$work"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/cache}

if [ -n "${SMALL:-}" ]; then
    config=tests/small_config.py published=$config long=$config batch=8 small=8 dtype=float32 epochs=2
    PYTHONPATH="$PYTHONPATH:$PWD/tests"
else
    config=configs/simfle.py published=configs/simfle_reference.py long=configs/simfle.py:resnet18
    batch=256 small=64 dtype=bfloat16 epochs=100
fi

say() { echo "$(printf '%4d' $SECONDS) s  $*" | tee -a "$out/log.txt"; }
complete() { grep -q '"complete": true' "$out/$1.json" 2> /dev/null; }

# NAME LIMIT COMMAND...: runs a part for LIMIT seconds at most, and no longer than the call lasts; SIGTERM ends it.
part() {
    local name=$1 limit=$(($2 * call_seconds / 420)) left=$((call_seconds - 10 - SECONDS)) status
    shift 2
    if complete "$name"; then say "$name is there"; return; fi
    if [ $left -lt 15 ]; then say "$name is left out: no time"; return; fi
    [ "$left" -lt "$limit" ] && limit=$left
    say "$name, at most $limit s"
    timeout -k 20 "$limit" "$@" >> "$out/$name.log" 2>&1
    status=$?
    say "$name ended with status $status"
}

# NAME LIMIT CONFIG BATCH EPOCHS FLAGS...: pre-trains until a signal stops and saves the run; then probes.
train() {
    local name=$1 run=$work/$1 protocol
    if complete "$name"; then say "$name is there"; return; fi
    part "$name.run" "$2" "$python" train.py --config="$3" --config.data.path="$data/train" --config.batch_size="$4" \
        --config.epochs="$5" --config.dtype=$dtype --workdir="$run" "${@:6}"
    cp "$run/metrics.jsonl" "$out/$name.jsonl"
    [ -f "$run/encoder.safetensors" ] || return
    for protocol in knn logistic; do
        part "$name.$protocol" 40 "$python" probe.py --config=configs/probe.py --config.encoder="$run" \
            --config.data.path="$data" --config.protocol=$protocol --workdir="$work/$name-$protocol"
    done
    part "$name" 15 "$python" benchmarks/gpu_run.py "$run" "$work/$name-knn" "$work/$name-logistic" --out "$out/$name.json"
}

first() {
    # Without CUDA's graphs each kernel has its name in the profile.
    XLA_FLAGS=--xla_gpu_enable_command_buffer= part profile 190 "$python" benchmarks/gpu_step.py --config $published \
        --dtype $dtype --batch-size $batch --profile --out "$out/profile.json"
    part laws 110 "$python" benchmarks/gpu_laws.py "$data/train" --work "$work/laws" --config $long --dtype $dtype \
        --out "$out/laws.json"
    part parity 90 "$python" -m pytest -q -p no:cacheprovider -n 8 tests/parity --basetemp "$work/parity"
    part torch 45 "$python" benchmarks/gpu_torch.py --config $published --batch-size $batch --out "$out/torch.json"
    part torch_compiled 120 "$python" benchmarks/gpu_torch.py --config $published --batch-size $batch --compiled \
        --out "$out/torch_compiled.json"
}

second() {
    # What the published program does, at a size at which ten thousand steps take minutes.
    train long 170 $long $small $epochs --config.facemae.tie=published --config.facemae.plain_in_averages=True \
        --config.views.size=48 --config.views.plain_size=64 --config.optimizer.lr=0.4 --config.log_steps=25 \
        --config.checkpoint_steps=1000
    train simfle 170 $config $batch 1000 --config.checkpoint_steps=1000
    part step_float32 180 "$python" benchmarks/gpu_step.py --config $published --dtype float32 --batch-size $batch \
        --out "$out/step_float32.json"
}

nvidia-smi > "$out/machine.log" 2>&1
"$python" -m pip list 2> /dev/null | grep -iE '^(jax|flax|optax|orbax|torch|numpy|grain|nvidia-cudnn)' >> "$out/machine.log"
case $call in
    first | second) $call ;;
    *) echo "$usage" >&2 && exit 2 ;;
esac
say "results are in $out"
