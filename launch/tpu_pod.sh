#!/usr/bin/env bash
# A TPU pod slice by a queued resource, then the same command on all its hosts; they find each other by themselves.
#
#     NAME=simfle ZONE=us-west4-a TYPE=v5litepod-256 launch/tpu_pod.sh \
#         --config=configs/simfle.py --config.data.path=gs://BUCKET/faces --workdir=gs://BUCKET/runs/simfle
#
# Run it again after the slice was taken away: it asks for a new one, and the run goes on. The hosts share nothing but the
# bucket, which the slice's service account must be allowed to write. CACHE is a folder of each host for its copy of the
# pack; SETUP is a shell line that prepares one host.
set -euo pipefail
: "${NAME:=simfle}" "${ZONE:?}" "${TYPE:?}" "${VERSION:=v2-alpha-tpuv5-lite}" "${CACHE:=/tmp/simfle}"
: "${SETUP:=git clone -q REPOSITORY simfle-jax; cd simfle-jax && python3 -m venv .venv && .venv/bin/pip install -q -e '.[tpu]'}"

queued() { gcloud compute tpus queued-resources "$1" "$NAME" --zone="$ZONE" "${@:2}"; }
state() { queued describe --format='value(state.state)' 2> /dev/null || true; } # nothing where there is none
while true; do
  case "$(state)" in
    ACTIVE) break ;;
    # Its slice was taken away or not given. It never becomes active again, and its name is free once it is deleted.
    SUSPENDED | FAILED) queued delete --force --quiet ;;
    "") queued create --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$VERSION" ${SPOT:+--spot} ;;
    *) sleep 30 ;; # it waits for a slice, or is being deleted
  esac
done
on_all() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }
on_all "test -d simfle-jax || { $SETUP; }"
on_all "cd simfle-jax && SIMFLE_CACHE_DIR=$(printf %q "$CACHE") .venv/bin/python train.py --distributed=on $(printf '%q ' "$@")"
