"""The version: one place has it, the list of changes tells it, and a tag of a release is the same."""

import re
import subprocess
from pathlib import Path

import pytest

import simfle_jax

ROOT = Path(__file__).parents[2]


def test_the_list_of_changes_has_the_version():
    """The newest release of the list is the package's; what came since is unreleased."""
    titles = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(title for title in titles if title != "Unreleased") == simfle_jax.__version__


def test_a_tag_of_this_commit_is_the_version():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    found = subprocess.run(["git", "tag", "--points-at", "HEAD", "v*"], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.split() in ([], [f"v{simfle_jax.__version__}"])
