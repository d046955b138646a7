"""The house: no circle of imports, lazy ones included; small files and functions; every public function typed."""

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "simfle_jax"
LONGEST_FILE, MEDIAN_FILE, LONGEST_FUNCTION = 350, 120, 60


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def nearest_module(name: str) -> str:
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name


def imports(module: str) -> set[str]:
    """The modules of the package that this one imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {nearest_module(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {nearest_module(f"{node.module}.{alias.name}") for alias in node.names}
    return found - {"", module, "simfle_jax"}


def room(module: str) -> str:
    """The folder of the package that a module lies in, or the module itself where it lies at the top."""
    return ".".join(module.split(".")[:2])


def circle(edges: dict[str, set[str]]) -> list[str]:
    """A circle in a graph, as the names along it; empty where there is none."""
    done: set[str] = set()

    def follow(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(edges.get(node, ())):
            if found := follow(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next(filter(None, (follow(node, []) for node in sorted(edges))), [])


def test_no_circle_of_imports_between_files():
    assert circle({module: imports(module) for module in FILES}) == []


def test_no_circle_of_imports_between_folders():
    edges: dict[str, set[str]] = {}
    for module in FILES:
        edges.setdefault(room(module), set()).update(map(room, imports(module)))
    assert circle({name: others - {name} for name, others in edges.items()}) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]


def test_files_are_small():
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}
    assert statistics.median(length for length in lengths.values() if length) <= MEDIAN_FILE


def functions() -> list[tuple[str, ast.FunctionDef]]:
    return [
        (name, node) for name, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    ]


def test_functions_are_short():
    too_long = [
        f"{name}.{node.name}" for name, node in functions() if node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert too_long == []


def test_every_public_function_is_typed():
    untyped = []
    for name, node in functions():
        every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        arguments = [argument for argument in every if argument.arg not in ("self", "cls")]
        if not node.name.startswith("_") and (node.returns is None or any(a.annotation is None for a in arguments)):
            untyped.append(f"{name}.{node.name}")
    assert untyped == []
