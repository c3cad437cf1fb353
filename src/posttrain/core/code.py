"""The code that each stage depends on, so that an edit reruns the stages it affects and no others.

    python -m posttrain.core.code            the imports between rooms, and whether all point one way
    python -m posttrain.core.code STAGE      the files that a stage depends on (or a method: selector_rl/ppo)

Stage `code` writes data/code/STAGE for each stage, and data/code/STAGE/METHOD for each method of `selector_rl` and
`generator_rl`; dvc.yaml names that file as the stage's dependency on code. It lists the project's files that the stage
imports, at module level or inside a function, each with a hash of its syntax tree without docstrings: an edit of a
comment or a docstring changes nothing. Other files (`page.css` beside `page.py`) are hashed byte for byte.

Of the tasks, only that of the chosen data set and those of its parts count, and of each only the parts that the stage uses
(`task.score`, `task.explain`, ...): for a part that `task.py` imports, the module it comes from; for one that it defines,
all of `task.py`. Of the methods, only the one that the stage is started for counts. Imports for types alone
(`if TYPE_CHECKING`) do not count.

Left out: the versions of libraries (each manifest names them); modules imported under a computed name, apart from
tasks and methods.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.core.files import read_json, sha256_file, write_json
from posttrain.core.params import FINE_TUNED, PACKAGE, Params, method_names

PROJECT = PACKAGE.parents[1]
CODE = Path("data/code")
WITHOUT_EFFECT = (
    "src/posttrain/core/code.py",
    "src/posttrain/core/cost.py",
    "src/posttrain/core/plan.py",
    "src/posttrain/core/progress.py",
)  # bookkeeping that changes no result
TASKS = ("tasks", "environments")  # folders of tasks
RAW = "files.json"  # SHA-256 of each file when the digests were written
FLOORS = (
    ("core",),
    ("tasks", "models", "measures"),
    ("environments",),
    ("pools", "rollouts"),
    ("selector", "generator"),
    ("report",),
)

Digest = dict[str, str]  # path in the project -> hash


def consumers(params: Params) -> list[str]:
    """Names of all digests: the stages, or their methods where they have some: `fetch`, ..., `selector_rl/ppo`, ..."""
    names = []
    for script in sorted((PROJECT / "stages").glob("*.py")):
        family = _family_of(script.stem)
        if family is None:
            names.append(script.stem)
        else:
            names += [f"{script.stem}/{method}" for method in params.family(family).methods]
    return names


def consumer(stage: str, arguments: list[str]) -> str:
    """Name of the digest of a stage that was started with these arguments; `UserError` for an unknown method."""
    family = _family_of(stage)
    if family is None or not arguments:
        return stage
    known = [name for name in method_names(family) if name != FINE_TUNED]
    if arguments[0] not in known:
        raise UserError(f"method {arguments[0]!r}: expected one of {', '.join(known)}")
    return f"{stage}/{arguments[0]}"


def digest(name: str, *tasks: str) -> Digest:
    """Hashes of the files that a stage (or `stage/method`) depends on, for a data set of these tasks."""
    stage, _, method = name.partition("/")
    scripts = {PROJECT / "stages" / f"{stage}.py"}
    if method:
        scripts |= set(_modules(f"posttrain.{_family_of(stage)}.methods.{method}"))
    return digest_of(scripts, *tasks)


def digest_of(scripts: set[Path], *tasks: str) -> Digest:
    """Hashes of these files and of everything that they import."""
    new, found, parts = scripts, set[Path](), set[str]()
    while new - found:
        found |= new
        new = {file for known in new for file in _imports(known)}
        asked = {part for file in found for part in _task_parts(file)} - parts
        for part in sorted(asked):
            new |= {file for task in tasks for file in _part_files(task, part)}
        parts |= asked
    found |= {extra for file in found for extra in _beside(file)}
    names = sorted(file.relative_to(PROJECT).as_posix() for file in found)
    return {name: fingerprint(PROJECT / name) for name in names if name not in WITHOUT_EFFECT}


def fingerprint(file: Path) -> str:
    """SHA-256 of a Python file's syntax tree without docstrings and comments; of any other file, of its bytes."""
    return _fingerprint(file.read_bytes()) if file.suffix == ".py" else sha256_file(file)


@cache
def _fingerprint(source: bytes) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def write_digests(directory: Path, params: Params) -> None:
    """Write a digest for each consumer into `directory`."""
    raw = Digest()
    for name in consumers(params):
        files = digest(name, *params.tasks)
        write_json(directory / name, files)
        raw |= {file: sha256_file(PROJECT / file) for file in files}
    write_json(directory / RAW, raw)


def read_digest(name: str) -> str:
    """SHA-256 of a stage's stored digest; `UserError` if there is none."""
    _check_noted(name)
    return sha256_file(CODE / name)


def check(name: str, *tasks: str) -> None:
    """`UserError` if a stage's code has changed since stage `code` stored its digest."""
    _check_noted(name)
    noted: Mapping[str, str] = read_json(CODE / name)
    raw: Mapping[str, str] = read_json(CODE / RAW)
    if all(_raw_now(file) == raw.get(file) for file in noted):
        return
    changed = sorted(set(digest(name, *tasks).items()) ^ set(noted.items()))
    if changed:
        raise UserError(
            f"{changed[0][0]} has changed since stage code hashed it for {name}; run dvc repro, or python stages/code.py"
        )


def _check_noted(name: str) -> None:
    if not (CODE / name).is_file():
        stage, _, method = name.partition("/")
        listed = f"name {method} in {_family_of(stage)}.methods and " if method else ""
        raise UserError(f"{CODE / name}: missing; {listed}run python stages/code.py")


def _raw_now(file: str) -> str | None:
    path = PROJECT / file
    return sha256_file(path) if path.is_file() else None


def _family_of(stage: str) -> str | None:
    """The family of a stage that is started once per method; None for any other stage."""
    return stage.removesuffix("_rl") if stage.endswith("_rl") else None


# ------------------------------------------------------------------------------- imports


def _tree(file: Path) -> ast.Module:
    return _parsed(file.read_bytes())


@cache
def _parsed(source: bytes) -> ast.Module:
    return ast.parse(source)


def _modules(name: str) -> list[Path]:
    """The files that `import name` runs: the module and its packages, except files that hold a docstring only."""
    parts = name.split(".")
    root = PROJECT if parts[0] == "pretrain" else PACKAGE.parent
    files = []
    for count in range(1, len(parts) + 1):
        path = root / Path(*parts[:count])
        files += [path.with_suffix(".py"), path / "__init__.py"]
    return [file for file in files if file.is_file() and len(_tree(file).body) > 1]


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _nodes(node)


def _imported(node: ast.AST) -> list[str]:
    """The names that a statement imports from this project."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] in (PACKAGE.name, "pretrain")]


def _imports(file: Path) -> set[Path]:
    """The project's files that a file imports. A task's `task.py` is reached only through its parts."""
    if file.suffix != ".py":
        return set()
    return {found for name in _names(file.read_bytes())[0] for found in _modules(name)}


@cache
def _names(source: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """The names that a file imports from this project, and the attributes that it reads of anything called `task`."""
    nodes = list(_nodes(_parsed(source)))
    imported = frozenset(name for node in nodes for name in _imported(node))
    asked = frozenset(
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and _name(node.value).lower() == "task"
    )
    return imported, asked


def _beside(file: Path) -> list[Path]:
    """Files beside a module with its name and another suffix, which it reads."""
    return [
        path for path in file.parent.glob(f"{file.stem}.*") if path.suffix not in (".py", ".pyc")
    ]


def _task_parts(file: Path) -> frozenset[str]:
    """The parts of a task that a file uses."""
    if file.suffix != ".py" or any(file.is_relative_to(PACKAGE / each) for each in TASKS):
        return frozenset()
    asked = _names(file.read_bytes())[1]
    return asked | {"score", "score_all"} if "scores" in asked else asked


def _name(node: ast.expr) -> str:
    """`task` of `task`, of `answers.task` and of `get_task(...)`."""
    if isinstance(node, ast.Call):
        return _name(node.func).removeprefix("get_")
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _part_files(task: str, part: str) -> set[Path]:
    """The files that define a part of a task; none if the task leaves the part to its default."""
    (file,) = PACKAGE.glob(f"*/{task}/task.py")
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == part:
                    return set(_modules(f"{node.module}.{alias.name}"))
        defined = getattr(node, "name", None) or [
            getattr(target, "id", None) for target in getattr(node, "targets", [])
        ]
        if part == defined or (isinstance(defined, list) and part in defined):
            return {file}
    return set()


# ------------------------------------------------------------------------------- rooms


def room_imports() -> Counter[tuple[str, str]]:
    """The number of imports from each room (a folder of the package) to each other room."""
    arrows: Counter[tuple[str, str]] = Counter()
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0]
        for node in _nodes(_tree(file)):
            for name in {other.split(".")[1] for other in _imported(node) if "." in other}:
                if name != room and room.removesuffix(".py") == room:
                    arrows[room, name] += 1
    return arrows


def upward(arrows: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
    """The imports that do not lead to a lower floor."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    return [(a, b) for a, b in arrows if floor.get(b, len(FLOORS)) >= floor.get(a, len(FLOORS))]


def main() -> None:
    if sys.argv[1:]:
        from posttrain.core.params import load_params

        for name, sha in digest(sys.argv[1], *load_params().tasks).items():
            print(sha[:12], name)
        return
    arrows = room_imports()
    for rooms in reversed(FLOORS):
        for room in rooms:
            down = [f"{b} ({count})" for (a, b), count in sorted(arrows.items()) if a == room]
            print(f"{room:10} -> {', '.join(down) or 'nothing of ours'}")
    wrong = upward(arrows)
    print(f"{len(arrows)} arrows, {len(wrong)} that do not lead down")
    if wrong:
        sys.exit("; ".join(f"{a} -> {b}" for a, b in wrong))


if __name__ == "__main__":
    main()
