"""launch/tpu_pod.sh against a gcloud of our own, which keeps the state of the queued resource in a file."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GCLOUD = """#!/bin/sh
# States follow one another as in the cloud; a resource that is there cannot be created.
echo "$3 $4" >> calls
state=$(cat state 2> /dev/null)
case "$3 $4" in
  "queued-resources describe") [ -n "$state" ] || exit 1; echo "$state"
    case "$state" in WAITING_FOR_RESOURCES) echo ACTIVE > state ;; SUSPENDING) echo SUSPENDED > state ;; esac ;;
  "queued-resources create") [ -z "$state" ] || exit 1; echo WAITING_FOR_RESOURCES > state ;;
  "queued-resources delete") case "$state" in SUSPENDED | FAILED) rm state ;; *) exit 1 ;; esac ;;
  "tpu-vm ssh") [ "$state" = ACTIVE ] || exit 1; echo "$@" >> hosts ;;
esac
"""


@pytest.mark.parametrize("state", ["", "ACTIVE", "WAITING_FOR_RESOURCES", "SUSPENDING", "SUSPENDED", "FAILED"])
def test_a_tpu_slice_is_asked_for_anew_whatever_became_of_the_last(state, tmp_path):
    for name, text in (("gcloud", GCLOUD), ("sleep", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    if state:
        (tmp_path / "state").write_text(state + "\n")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ZONE": "z", "TYPE": "v5litepod-256"}
    call = [ROOT / "launch/tpu_pod.sh", "--config=configs/simfle.py", "--workdir=a b"]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20, check=False)
    calls = (tmp_path / "calls").read_text()
    assert done.returncode == 0, (done.stderr, calls)
    assert ("delete" in calls) == (state in ("SUSPENDING", "SUSPENDED", "FAILED")), calls
    assert ("create" in calls) == (state not in ("ACTIVE", "WAITING_FOR_RESOURCES")), calls
    assert r"--config=configs/simfle.py --workdir=a\ b" in (tmp_path / "hosts").read_text()
