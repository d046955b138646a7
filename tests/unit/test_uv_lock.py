"""uv.lock is that of pyproject.toml: `uv sync` installs what `pip install` asks for."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def test_the_lock_has_every_requirement_and_no_address_of_one_machine():
    text = (ROOT / "uv.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (own,) = (package for package in tomllib.loads(text)["package"] if package["name"] == "simfle-jax")
    locked = {
        (each["name"], each.get("marker", ""), each.get("specifier", "")) for each in own["metadata"]["requires-dist"]
    }
    wanted = {("", requirement) for requirement in project["dependencies"]}
    for extra, requirements in project["optional-dependencies"].items():
        wanted |= {(f"extra == '{extra}'", requirement) for requirement in requirements}
    assert locked == {(name(each), marker, re.sub(r"^[\w.-]+(\[\w+\])?", "", each)) for marker, each in wanted}, (
        "run `uv lock`"
    )
    hosts = set(re.findall(r'(?:url|registry) = "(\w+://[^/"]+)', text))
    assert hosts == {"https://pypi.org", "https://files.pythonhosted.org"}
