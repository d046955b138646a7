"""What the program takes from other packages without their promise: each name with its reason, and still where it was."""

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# module: (names, why there is no public one)
PRIVATE = {
    "jax._src.distributed": (
        ("global_state",),
        "whether another process has had the notice of a preemption: multihost_utils only tells at a common step",
    )
}
FOREIGN = re.compile(
    r"(?:from|import) ((?:jax|jaxlib|flax|optax|orbax|grain|tensorstore)[\w.]*\._[\w.]*)(?: import (\w+))?"
)


def test_private_names_are_listed_and_still_there():
    found = {}
    for path in [*(ROOT / "simfle_jax").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for module, name in FOREIGN.findall(path.read_text()):
            found.setdefault(f"{module}.{name}".rstrip("."), []).append(path.name)
    assert found.keys() == PRIVATE.keys(), found
    for module, (names, why) in PRIVATE.items():
        assert why and all(hasattr(importlib.import_module(module), name) for name in names), module
