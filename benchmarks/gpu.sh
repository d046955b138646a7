#!/usr/bin/env bash
# Measures on a GPU that is there for a quarter of an hour, in two calls of some seven minutes:
#
#     benchmarks/gpu.sh first OUT           # the step with its profile, and the same step in PyTorch's layers
#     benchmarks/gpu.sh second OUT DATA     # more of both, laws and golden values, pre-training on DATA/train with probes
#     SMALL=1 benchmarks/gpu.sh ...         # the tests' sizes, to see on a CPU that it works
#
# DATA holds train/CLASS and val/CLASS, and may hold more images to pre-train on in generated/. Either call is of use without
# the other. Every part leaves OUT/PART.json as soon as it knows something, and what it said in OUT/PART.log. The same call
# again does what is not complete. The second call compiles all its programs side by side, since that takes minutes for each
# and the card is idle meanwhile, and then measures them one at a time. `benchmarks/gpu_wheels.sh` collects the packages that a
# GPU image lacks. PYTHON names the interpreter, WORK a folder for runs and caches, CALL_SECONDS another length of the call
# and, in proportion, of its parts.
set -uo pipefail
usage="usage: benchmarks/gpu.sh first OUT, or benchmarks/gpu.sh second OUT DATA"
call=${1:?$usage} out=$(realpath -m "${2:?$usage}") data=$(realpath -m "${3:-.}")
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python3} work=$(realpath -m "${WORK:-runs/gpu}") call_seconds=${CALL_SECONDS:-430}
mkdir -p "$out" "$work"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/cache}

if [ -n "${SMALL:-}" ]; then
    config=tests/small_config.py published=$config long=$config batch=8 twice=16 small=8 dtype=float32 epochs=2
    PYTHONPATH="$PYTHONPATH:$PWD/tests"
else
    config=configs/simfle.py published=configs/simfle_reference.py long=configs/simfle.py:resnet18
    batch=256 twice=512 small=64 dtype=bfloat16 epochs=100
fi

say() { echo "$(printf '%4d' $SECONDS) s  $*" | tee -a "$out/log.txt"; }
complete() { grep -q '"complete": true' "$out/$1.json" 2> /dev/null; }
share() { echo $(($1 * call_seconds / 430)); } # of the call, of what are so many seconds of the usual one

# NAME LIMIT COMMAND...: runs a part for LIMIT seconds at most, and no longer than the call lasts; SIGTERM ends it.
part() {
    local name=$1 limit=$(share "$2") left=$((call_seconds - 10 - SECONDS)) status
    shift 2
    if complete "$name"; then say "$name is there"; return; fi
    if [ $left -lt $((call_seconds / 30)) ]; then say "$name is left out: no time"; return; fi
    [ "$left" -lt "$limit" ] && limit=$left
    say "$name, at most $limit s"
    timeout -k 20 "$limit" "$@" >> "$out/$name.log" 2>&1
    status=$?
    say "$name ended with status $status"
}

# NAME COMMAND...: starts a part beside others.
declare -A pids
beside() {
    local name=$1
    shift
    if complete "$name"; then say "$name is there"; return; fi
    say "$name begins"
    "$@" >> "$out/$name.log" 2>&1 &
    pids[$name]=$!
}

alive() { [ -n "${pids[$1]:-}" ] && kill -0 "${pids[$1]}" 2> /dev/null; }
send() { if alive "$2"; then kill "-$1" "${pids[$2]}"; fi; }

# LIMIT NAME...: waits for them, and ends what is not over by then.
over() {
    local end=$((SECONDS + $(share "$1"))) name
    shift
    for name in "$@"; do
        while alive "$name" && [ "$SECONDS" -lt "$end" ]; do sleep 0.2; done
        if alive "$name"; then
            send CONT "$name"
            send TERM "$name"
            for _ in {1..100}; do alive "$name" && sleep 0.2; done
            send KILL "$name"
        fi
        [ -n "${pids[$name]:-}" ] && wait "${pids[$name]}" && say "$name is over" || say "$name has not ended by itself"
    done
}

step() { # DTYPE BATCH FLAGS...
    local command=("$python" benchmarks/gpu_step.py --config $published --dtype "$1" --batch-size "$2")
    step_command=("${command[@]}" "${@:3}")
}

train() { # NAME CONFIG IMAGES BATCH EPOCHS FLAGS...
    train_command=("$python" train.py "--config=$2" "--config.data.path=$3" "--config.batch_size=$4" "--config.epochs=$5"
        "--config.dtype=$dtype" "--workdir=$work/$1" "${@:6}")
}

# What the published program does, at a size at which ten thousand steps take minutes.
of_old=(--config.facemae.tie=published --config.facemae.plain_in_averages=True --config.views.size=48
    --config.views.plain_size=64 --config.optimizer.lr=0.4 --config.log_steps=25 --config.checkpoint_steps=500)

first() {
    step $dtype $batch --profile
    part step_${dtype}_$batch 200 "${step_command[@]}" --out "$out/step_${dtype}_$batch.json"
    part torch 60 "$python" benchmarks/gpu_torch.py --config $published --batch-size $batch --out "$out/torch.json"
}

second() {
    local name timed
    declare -A stopped
    export XLA_PYTHON_CLIENT_PREALLOCATE=false # several programs share the card
    rm -f "$work"/go.*

    step $dtype $twice --wait-for "$work/go.step_${dtype}_$twice"
    beside step_${dtype}_$twice "${step_command[@]}" --out "$out/step_${dtype}_$twice.json"
    step float32 $batch --wait-for "$work/go.step_float32_$batch"
    beside step_float32_$batch "${step_command[@]}" --out "$out/step_float32_$batch.json"
    step $dtype $batch --profile --wait-for "$work/go.profile"
    XLA_FLAGS=--xla_gpu_enable_command_buffer= beside profile "${step_command[@]}" --out "$out/profile.json"
    beside torch_compiled "$python" benchmarks/gpu_torch.py --config $published --batch-size $batch --compiled \
        --wait-for "$work/go.torch_compiled" --out "$out/torch_compiled.json"
    train simfle $config "$data/train" $batch 1000 --config.log_steps=5
    beside simfle "${train_command[@]}"
    beside laws "$python" benchmarks/gpu_laws.py "$data/train" --work "$work/laws" --config $long --dtype $dtype \
        --out "$out/laws.json"
    train long $long "$data/train" $small $epochs "${of_old[@]}"
    beside long "${train_command[@]}"
    if [ -d "$data/generated" ]; then
        train long_generated $long "$data/generated" $small $epochs "${of_old[@]}"
        beside long_generated "${train_command[@]}"
    fi

    # A training stops when it has begun, and goes on when the card is free of what is timed.
    timed=(profile torch_compiled step_${dtype}_$twice step_float32_$batch)
    local end=$((SECONDS + $(share 180))) waiting=1
    while [ $waiting = 1 ] && [ $SECONDS -lt $end ]; do
        sleep 0.2
        waiting=0
        for name in simfle long long_generated; do
            if alive $name && [ -z "${stopped[$name]:-}" ]; then
                if grep -qs loss/total "$work/$name/metrics.jsonl"; then send STOP $name; stopped[$name]=1; else waiting=1; fi
            fi
        done
        for name in "${timed[@]}"; do
            if alive $name && ! grep -qsE '(compile|first_step)_seconds' "$out/$name.json"; then waiting=1; fi
        done
    done
    say "compiled"
    over 60 laws
    for name in "${timed[@]}"; do
        say "$name is timed"
        touch "$work/go.$name"
        over 60 $name
    done

    say "simfle trains alone"
    send CONT simfle
    over 35 simfle

    say "the long runs go on"
    send CONT long
    send CONT long_generated
    "$python" -m pytest -q -p no:cacheprovider -n 6 tests/parity --basetemp "$work/parity" > "$out/parity.log" 2>&1 &
    pids[parity]=$!
    if ! complete simfle; then
        for name in knn logistic; do
            part simfle.$name 60 "$python" probe.py --config=configs/probe.py --config.encoder="$work/simfle" \
                --config.data.path="$data" --config.protocol=$name --workdir="$work/simfle-$name"
        done
        part simfle 15 "$python" benchmarks/gpu_run.py "$work/simfle" "$work/simfle-knn" "$work/simfle-logistic" \
            --out "$out/simfle.json"
    fi
    over $((430 - 30 - SECONDS * 430 / call_seconds)) long long_generated parity
    for name in simfle long long_generated; do
        cp "$work/$name/metrics.jsonl" "$out/$name.jsonl" 2> /dev/null
    done
}

nvidia-smi > "$out/machine.log" 2>&1
"$python" -m pip list 2> /dev/null | grep -iE '^(jax|flax|optax|orbax|torch|numpy|grain|nvidia-cudnn)' >> "$out/machine.log"
case $call in
    first | second) $call ;;
    *) echo "$usage" >&2 && exit 2 ;;
esac
say "results are in $out"
