#!/usr/bin/env bash
# Collects what a GPU image with JAX, flax, optax, orbax and torch lacks of this package's needs, as wheels to carry:
#
#     benchmarks/gpu_wheels.sh FOLDER              # here, where packages can be downloaded
#     python -m pip install --no-index --no-deps --target SITE FOLDER/*.whl && export PYTHONPATH=SITE    # there
#
# For Python 3.12 on x86-64 Linux (PYTHON_VERSION says another), at the versions of requirements.txt. JAX itself, numpy and
# what is compiled against them stay as the image has them. PYTHON names the interpreter whose pip downloads.
set -euo pipefail
folder=${1:?usage: benchmarks/gpu_wheels.sh FOLDER}
cd "$(dirname "$0")/.."
mkdir -p "$folder"
names=(grain ml_collections array_record simplejpeg portpicker)
platforms=()
for version in 2_28 2_27 2_24 2_17 2_12 2_5 1; do
    case $version in 1) platforms+=(--platform manylinux1_x86_64) ;; *) platforms+=(--platform "manylinux_${version}_x86_64") ;; esac
done
platforms+=(--platform manylinux2014_x86_64 --platform any)
for name in "${names[@]}"; do
    pinned=$(grep -i "^${name}==" requirements.txt)
    "${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
        --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" --dest "$folder" "$pinned"
done
du -ch "$folder"/*.whl
