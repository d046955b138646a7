"""The longer demo: which settings its methods have, and what it makes of their scores."""

import pytest

from configs import demo_long as settings
from simfle_jax.commands import demo_long
from simfle_jax.config import pretraining
from simfle_jax.errors import UserError


def results(probe):
    """One seed: every method rises from .25 to `probe`."""
    start, end = ({"probe": value, "probe_few": 0.2, "retrieval": 0.1} for value in (0.25, probe))
    curves = {
        name: [start | {"step": 0, "seconds": 0.0}, end | {"step": 600, "seconds": 90.0}] for name in settings.METHODS
    }
    return curves | {"untrained": [start], "supervised": [end]}


def test_methods_differ_in_what_they_are_named_after():
    configs = {method: pretraining(settings.get_config(method)) for method in settings.METHODS}
    assert [c.method for c in configs.values()] == ["simfle", "simfle", "byol", "byol"]
    assert configs["random"].facemae.masking == "random" and configs["simfle"].facemae.masking == "semantic"
    assert (
        configs["simfle"].epochs == configs["random"].epochs == configs["byol"].epochs < configs["byol_longer"].epochs
    )
    with pytest.raises(UserError, match=r"demo_long\.py:mae does not exist; give one of simfle, random"):
        settings.get_config("mae")


def test_the_table_gives_mean_and_range_over_seeds():
    lines = demo_long.table({"0": results(0.4), "1": results(0.5)}).splitlines()
    (simfle,) = (line for line in lines if line.startswith("SimFLE"))
    assert simfle.split()[1:3] == ["600", "1.5"] and "45.0 (40.0 to 50.0)" in simfle
    (untrained,) = (line for line in lines if line.startswith("untrained"))
    assert "25.0 (25.0 to 25.0)" in untrained


def test_the_curve_is_a_picture(tmp_path):
    demo_long.draw({"0": results(0.4), "1": results(0.5)}, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
