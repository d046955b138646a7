"""The documents name only what exists, and README stays short."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from configs import probe, simfle
from simfle_jax.config import flatten

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
SETTINGS = flatten(simfle.get_config()) | flatten(probe.get_config())
GROUPS = {key.rsplit(".", 1)[0] for key in SETTINGS if "." in key}
IN_A_RUN = {"encoder.safetensors", "metrics.jsonl", "config.json", "environment.json", "checkpoints/"}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def code_lines(text: str) -> list[str]:
    """The lines of indented code blocks, with continued lines joined."""
    return re.findall(r"^    (?! )(.+)$", re.sub(r" *\\\n +", " ", text), re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The words of every command of the project in code blocks and inline code."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = code_lines(text) + [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]
    split = [shlex.split(line, comments=True) for line in lines if re.match(r"[\w./]*(python|pytest) ", line)]
    return [words for words in split if len(words) > 1]


def test_readme_is_short():
    text = (ROOT / "README.md").read_text()
    numbers = re.findall(r"\d+(?:[.,]\d+)*", text)
    assert len(text.splitlines()) <= 120
    assert len(numbers) <= 40, numbers


@each_document
def test_every_link_leads_somewhere(document):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text())
    lost = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not lost, f"{document.name} links to what is not there: {lost}"


@each_document
def test_every_named_file_exists(document):
    """Names in backticks that end like a source, and folders of the project; not what a command makes or an owner gave."""
    text = document.read_text()
    names = re.findall(r"`([\w./-]+(?:\.py|\.md|\.sh|\.toml|/))`", text)
    made = {*IN_A_RUN, "train/", "val/", "unlabelled/", *re.findall(r"\bas\s`([\w/.]+)`:", text)}
    lost = [
        name for name in names
        if name not in made and not re.match("[A-Z]", name) and (name[-1] != "/" or (ROOT / name.split("/")[0]).exists())
        and not any((place / name).exists() for place in (ROOT, ROOT / "simfle_jax", document.parent))
    ]  # fmt: skip
    assert not lost, f"{document.name} names files that are not there: {lost}"


@each_document
def test_every_setting_exists(document):
    text = document.read_text()
    given = re.findall(r"--config\.([\w.]+)", text)
    named = re.findall(rf"`((?:{'|'.join(sorted(GROUPS))})\.\w+)(?:=[^`]*)?`", text)
    lost = [key for key in given + named if key not in SETTINGS and key not in ("KEY", *GROUPS) and key[-3:] != ".py"]
    assert not lost, f"{document.name} names settings that are not there: {lost}"


@each_document
def test_every_flag_of_a_command_exists(document):
    lost = []
    for words in commands(document.read_text()):
        sources = program(words)
        if sources is None:
            continue
        assert sources, f"{document.name}: no program for {' '.join(words)}"
        source = "".join(file.read_text() for file in sources)
        flags = {re.split("[=.]", word)[0] for word in words if word.startswith("--")}
        lost += [f"{flag} of {words}" for flag in flags if not defines(source, flag)]
    assert not lost, f"{document.name} gives flags that are not there: {lost}"


def program(words: list[str]) -> list[Path] | None:
    """The sources of the program that a command runs, beside what all commands share; None: not one of ours."""
    if words[0].endswith("pytest"):
        return [ROOT / "tests/conftest.py"]
    name = words[2] if words[1] == "-m" else words[1]
    if words[1] == "-m" and not name.startswith(("simfle_jax.", "benchmarks.")):
        return None
    path = name.removesuffix(".py").replace(".", "/")
    found = [ROOT / f"{path}.py", ROOT / f"simfle_jax/commands/{Path(path).name}.py"]
    shared = [ROOT / f"simfle_jax/{name}.py" for name in ("commands/cli", "commands/aligning", "distributed")]
    found = [file for file in found if file.is_file()]
    return [*found, *shared, *(ROOT / "benchmarks").glob("timing.py")] if found else []


def defines(source: str, flag: str) -> bool:
    """Whether argparse or absl would know the flag; shared strengths of generated faces come from a dataclass."""
    return bool(re.search(rf'"{flag}"|DEFINE_\w+\(\s*"{flag.removeprefix("--")}"', source))


def test_the_method_s_symbols_are_where_the_document_says():
    lost = []
    for line in (ROOT / "docs/method.md").read_text().splitlines():
        names = re.findall(r"`([^`]+)`", line) if line.startswith("|") else []
        files = [ROOT / name for name in names if name.endswith(".py") and name.startswith("simfle_jax")]
        if len(files) != 1:
            continue
        source = files[0].read_text()
        parts = [
            part for name in names if re.fullmatch(r"[\w.]+", name) and "/" not in name for part in name.split(".")
        ]
        lost += [f"{part} in {files[0].name}" for part in parts if not re.search(rf"\b{part}\b", source)]
    assert not lost


def layers() -> dict[str, int]:
    """The height of every module and folder in the picture of docs/architecture.md; the lowest layer has 0."""
    picture = (ROOT / "docs/architecture.md").read_text().split("```text\n")[1].split("```")[0]
    rows = [line.split()[1:] for line in picture.splitlines() if "|" not in line]
    return {name.rstrip("/"): height for height, row in enumerate(reversed(rows)) for name in row}


def test_imports_follow_the_picture_of_the_layers():
    height = layers()
    package = ROOT / "simfle_jax"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(height), f"docs/architecture.md shows no layer for {rooms - set(height)}"
    upward = []
    for file in package.rglob("*.py"):
        here = file.relative_to(package).parts[0].removesuffix(".py")
        for there in imported(file):
            if there in height and here in height and height[there] > height[here]:
                upward.append(f"{file.relative_to(ROOT)} imports {there}")
    assert not upward, upward


def imported(file: Path) -> set[str]:
    """The modules and folders directly below simfle_jax that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "simfle_jax":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("simfle_jax."):
            found.add(node.module.split(".")[1])
    return found


@each_document
def test_every_row_of_a_table_has_the_cells_of_its_head(document):
    for table in re.findall(r"(?:^\|.*\n)+", document.read_text(), re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line.strip()))[1:-1] for line in table.splitlines()]
        wrong = [row for row in rows if len(row) != len(rows[0])]
        assert not wrong, f"{document.name}: {wrong[0]} has {len(wrong[0])} cells, its head {len(rows[0])}"


def test_cells_of_performance_are_short():
    rows = [line for line in (ROOT / "docs/performance.md").read_text().splitlines() if line.startswith("|")]
    long = [cell for line in rows for cell in line.split("|") if len(cell.split()) > 20]
    assert not long
