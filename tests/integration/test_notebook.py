"""notebooks/quickstart.ipynb runs from top to bottom, made small."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"
SMALL = {
    "epochs": 1, "batch_size": 16, "trunk.stage_sizes": (1, 1), "trunk.width": 4, "heads.hidden": 16, "heads.out": 8,
    "facemae.width": 16, "facemae.depth": 1, "facemae.heads": 2, "facemae.decoder_width": 8, "facemae.decoder_heads": 2,
    "facemae.n_groups": 4,
}  # fmt: skip


@pytest.fixture
def cells() -> list[str]:
    """The sources of the code cells."""
    content = json.loads(NOTEBOOK.read_text())
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_runs(cells, tmp_path, monkeypatch, capfd):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: (shown.append(len(plt.gcf().axes)), plt.close("all")))
    namespace: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number} of {NOTEBOOK.name}", "exec"), namespace)
        if not number:  # the first cell has what may be changed
            namespace |= {"WORK": tmp_path, "COUNT": 64, "VAL_COUNT": 32, "CHANGES": SMALL}
    assert shown == [16, 4, 24, 28], "panels of faces, losses, masks and neighbours"
    printed = capfd.readouterr().out
    assert "SimFLE" in printed and "surprise   ->" in printed


def test_its_stored_outputs_are_small():
    assert NOTEBOOK.stat().st_size < 150_000
    assert "/root" not in NOTEBOOK.read_text() and "/home" not in NOTEBOOK.read_text()
