#!/usr/bin/env bash
# The suite with other versions: each in an environment of its own below .versions/, warnings as errors as always.
#
#     tests/versions.sh                        # all of them, then a line for each
#     tests/versions.sh oldest-3.11            # this one
#     tests/versions.sh --make newest-3.13     # only makes the environment
#     TESTS=tests/unit tests/versions.sh       # only these
#
# oldest: the lowest that pyproject.toml allows. pinned: those of requirements.txt. newest: what the registry has today.
# Needs the Pythons, on the PATH as python3.13 or below PYENV_ROOT, and an hour of two cores for all. Without PyTorch, whose
# packages of other versions hold gigabytes of CUDA: its tests are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
ALL=(oldest-3.11 pinned-3.11 newest-3.11 newest-3.12 newest-3.13)
read -ra TESTS <<< "${TESTS:-tests/unit tests/parity tests/integration tests/buckets tests/faults}"

python_of() { # 3.13 -> its program; pyenv's shims are on the PATH also where they lead nowhere
  local each
  for each in "$(command -v "python$1")" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    ! "$each" -c '' 2> /dev/null || { echo "$each"; return; }
  done
}

# What to install: the requirements of the package and of its tests, each at its lowest version where that is asked for.
requirements() { # oldest|pinned|newest
  "$2" - "$1" << 'END'
import re, sys, tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
for line in project["dependencies"] + project["optional-dependencies"]["test"]:
    if not line.startswith("torch"):
        lowest = re.sub(r">=([\w.]+).*", r"==\1", line)
        print(lowest if sys.argv[1] == "oldest" and line in project["dependencies"] else line)
print("setuptools>=77")  # builds the wheel that is tested; Python 3.11 brings an older one
if sys.argv[1] == "oldest":
    print("pyparsing<3.3")  # of which the oldest Matplotlib uses names that warn since
END
}

make_environment() { # NAME
  local kind=${1%%-*} python folder=.versions/$1
  python=$(python_of "${1#*-}")
  [ -n "$python" ] || { echo "$1: no Python ${1#*-} here" >&2; return 1; }
  [ "$kind" != pinned ] || set -- "$1" --constraint requirements.txt
  local pip=("$folder/bin/python" -m pip install --quiet --disable-pip-version-check)
  "$python" -m venv --clear "$folder" && requirements "$kind" "$python" > "$folder/requirements.txt" &&
    "${pip[@]}" --requirement "$folder/requirements.txt" "${@:2}" && "${pip[@]}" --no-deps --editable .
}

run_tests() { # NAME; prints its tally
  local folder=.versions/$1 versions
  versions=$("$folder/bin/python" -c 'import jax, flax, numpy, orbax.checkpoint as o, platform as p
print("Python", p.python_version(), "JAX", jax.__version__, "flax", flax.__version__, "numpy", numpy.__version__, "Orbax", o.__version__)')
  "$folder/bin/python" -m pytest -m 'not slow and not cluster' "${TESTS[@]}" > "$folder/log.txt" 2>&1 || true
  echo "$1: $(tail -1 "$folder/log.txt") ($versions; $folder/log.txt)"
  ! grep -qE '[0-9]+ (failed|error)' <(tail -1 "$folder/log.txt")
}

only_make=false
[ "${1:-}" != --make ] || { only_make=true; shift; }
[ $# -gt 0 ] || set -- "${ALL[@]}"
status=0
for name in "$@"; do
  [ -x ".versions/$name/bin/pytest" ] || make_environment "$name" || { status=1; continue; }
  $only_make || run_tests "$name" || status=1
done
exit $status
