#!/usr/bin/env bash
# Measures on a GPU that is there for a quarter of an hour, in two calls of at most six minutes:
#
#     benchmarks/gpu.sh first OUT           # the step, and the same in PyTorch's layers
#     benchmarks/gpu.sh second OUT DATA     # pre-training on DATA/train, with probes; DATA holds train/CLASS and val/CLASS
#     SMALL=1 benchmarks/gpu.sh ...         # the tests' sizes, to see on a CPU that it works
#
# Either is of use without the other. Every part has its own limit, leaves OUT/PART.json as soon as it knows something, and
# what it said in OUT/log.txt. The same call again does what is not complete. `benchmarks/gpu_wheels.sh` collects the packages
# that a GPU image lacks. PYTHON names the interpreter, WORK a folder for runs and caches, CALL_SECONDS another length of the
# call and, in proportion, of its parts.
set -uo pipefail
usage="usage: benchmarks/gpu.sh first OUT, or benchmarks/gpu.sh second OUT DATA"
call=${1:?$usage} out=$(realpath -m "${2:?$usage}") data=$(realpath -m "${3:-.}")
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python3} work=$(realpath -m "${WORK:-runs/gpu}")
call_seconds=${CALL_SECONDS:-360} reserved=0 # seconds that the present part leaves to others
mkdir -p "$out" "$work"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/cache}

small() { [ -n "${SMALL:-}" ]; }
if small; then
    config=tests/small_config.py published=tests/small_config.py batch=8 twice=16 dtype=float32 epochs=2 PYTHONPATH="$PYTHONPATH:$PWD/tests"
else
    config=configs/simfle.py published=configs/simfle_reference.py batch=256 twice=512 dtype=bfloat16 epochs=1000
fi

say() { echo "$(printf '%4d' $SECONDS) s  $*" | tee -a "$out/log.txt"; }

# NAME LIMIT COMMAND...: runs a part for LIMIT seconds at most, and no longer than the call lasts; SIGTERM ends it.
part() {
    local name=$1 limit=$(($2 * call_seconds / 360)) left=$((call_seconds - 10 - reserved - SECONDS))
    shift 2
    if grep -q '"complete": true' "$out/$name.json" 2> /dev/null; then say "$name is there"; return; fi
    if [ $left -lt 15 ]; then say "$name is left out: no time"; return; fi
    [ "$left" -lt "$limit" ] && limit=$left
    say "$name, at most $limit s"
    timeout -k 30 "$limit" "$@" >> "$out/log.txt" 2>&1
    say "$name ended with status $?"
}

step() { # DTYPE BATCH LIMIT
    part "step_$1_$2" "$3" "$python" benchmarks/gpu_step.py --config $published --dtype "$1" --batch-size "$2" --out "$out/step_$1_$2.json"
}

torch_step() { # NAME LIMIT FLAGS...
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" "$python" benchmarks/gpu_torch.py --config $published --batch-size $batch --out "$out/$name.json" "$@"
}

train() { # NAME FLAGS...: pre-trains for 85 s, after which a signal stops and saves the run; then probes
    local name=$1 run=$work/$1 protocol
    shift
    if grep -q '"complete": true' "$out/$name.json" 2> /dev/null; then say "$name is there"; return; fi
    reserved=30
    [ -f "$work/$name.trained" ] || part "$name.run" 85 "$python" train.py --config=$config \
        --config.data.path="$data/train" --config.dtype=$dtype --config.batch_size=$batch --config.epochs=$epochs \
        --workdir="$run" "$@"
    reserved=0
    [ -f "$run/encoder.safetensors" ] || return
    touch "$work/$name.trained"
    for protocol in knn logistic; do
        part "$name.$protocol" 30 "$python" probe.py --config=configs/probe.py --config.encoder="$run" \
            --config.data.path="$data" --config.protocol=$protocol --workdir="$work/$name-$protocol"
    done
    part "$name" 15 "$python" benchmarks/gpu_run.py "$run" "$work/$name-knn" "$work/$name-logistic" --out "$out/$name.json"
}

nvidia-smi >> "$out/log.txt" 2>&1
"$python" -m pip list 2> /dev/null | grep -iE '^(jax|flax|optax|orbax|torch|numpy|grain|nvidia-cudnn)' >> "$out/log.txt"
case $call in
    first)
        step bfloat16 $batch 120
        torch_step torch 45
        step bfloat16 $twice 90
        step float32 $batch 90
        torch_step torch_compiled 80 --compiled
        ;;
    second)
        train simfle
        train byol --config.method=byol
        train published --config.facemae.grouping_init=constant --config.facemae.tie=published \
            --config.facemae.plain_in_averages=True
        ;;
    *) echo "$usage" >&2 && exit 2 ;;
esac
say "results are in $out"
