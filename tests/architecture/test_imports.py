"""Who may import whom, and what no module may do. Every finding names the file and the line."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fromnoise

PACKAGE = Path(fromnoise.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# A room is a folder or a file directly in the package. It may import itself and the rooms named here, nothing else.
PARTS = {"types", "processes", "backbones", "frontends", "conditioning"}
CORE = PARTS | {"predictions", "denoiser", "objectives", "samplers"}
SERVICES = CORE | {
    "__init__",
    "tasks",
    "data",
    "files",
    "hub",
    "remote",
    "runner",
    "export",
    "importers",
    "training",
    "evaluation",
    "recipes",
}
MAY_IMPORT = {
    "__init__": set(),
    "types": set(),
    "files": set(),
    "processes": {"types"},
    "backbones": {"types"},
    "frontends": {"types"},
    "conditioning": {"types"},
    "samplers": {"types", "processes"},
    "predictions": {"types", "processes"},
    "denoiser": {"types", "processes", "backbones", "predictions"},
    "objectives": {"types", "processes", "predictions", "denoiser"},
    "tasks": CORE,
    "data": {"types", "files", "frontends"},
    "runner": set(),  # numpy alone: it must run where torch is not
    "remote": {"types"},
    "hub": SERVICES,
    "export": SERVICES,
    "importers": SERVICES,
    "training": SERVICES,
    "evaluation": SERVICES,
    "recipes": SERVICES,
    "cli": SERVICES | {"web", "batch"},
    "web": SERVICES,
    "batch": SERVICES,
}
# Two networks work on spectra of waves, whatever the process does: they alone may know the front ends.
ALSO_MAY_IMPORT = {"fromnoise.backbones.spectral": {"frontends"}, "fromnoise.backbones.encoder1d": {"frontends"}}


def room_of(module: str) -> str:
    """The room of a dotted module name: `fromnoise.samplers.base` -> `samplers`, `fromnoise` -> `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def dotted(path: Path) -> str:
    """`fromnoise/samplers/base.py` -> `fromnoise.samplers.base`."""
    return ".".join(("fromnoise", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import, relative ones resolved; `from fromnoise import hub` gives `fromnoise.hub`."""
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            rooms = [f"fromnoise.{alias.name}" for alias in node.names if alias.name in MAY_IMPORT]
            yield from ((node.lineno, full) for full in (rooms if name == "fromnoise" and rooms else [name]))


def forbidden_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of the project's own modules that the table does not allow."""
    room = room_of(module)
    allowed = MAY_IMPORT[room] | {room} | ALSO_MAY_IMPORT.get(module, set())
    return [
        f"{module}:{line}: {room} must not import {name}"
        for line, name in imported(ast.parse(source), module, is_package)
        if name.split(".")[0] == "fromnoise" and room_of(name) not in allowed
    ]


def _called(node: ast.Call) -> str:
    """The dotted name that is called, `torch.load`; for methods of an expression only `.name`."""
    function = node.func
    if isinstance(function, ast.Name):
        return function.id
    if isinstance(function, ast.Attribute):
        value = function.value
        return f"{value.id}.{function.attr}" if isinstance(value, ast.Name) else f".{function.attr}"
    return ""


def _call_faults(node: ast.Call) -> Iterator[str]:
    name = _called(node)
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in {"eval", "exec", "compile", "__import__"}:
        yield f"calls {name}()"
    if name.endswith(".cuda") and not name.startswith("torch."):
        yield "calls .cuda(); devices follow the input"
    if name == "torch.load":
        weights_only = options.get("weights_only")
        if not (isinstance(weights_only, ast.Constant) and weights_only.value is True):
            yield "calls torch.load without weights_only=True"
    if name.startswith(("pickle.load", "pickle.Unpickler")):
        yield f"calls {name}, which runs what is in the file"
    if name in {"np.load", "numpy.load"} and "allow_pickle" in options:
        yield "loads arrays with allow_pickle"


def _pickle_names(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Libraries that run what they read. `import pickle` is allowed for its exception; its loaders are not."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & {"dill", "joblib", "cloudpickle"}
    return {node.module or ""} & {"pickle", "dill", "joblib", "cloudpickle"}


def faults(source: str) -> list[str]:
    """What no module of the package may do, as `line: sentence`."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            found += [(node.lineno, fault) for fault in _call_faults(node)]
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append((node.lineno, "has a bare except"))
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
            found.append((node.lineno, "imports from __future__, which hides shapes from the tests"))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found += [(node.lineno, f"imports {name}") for name in _pickle_names(node)]
    return [f"{line}: {fault}" for line, fault in sorted(found)]


def file_access(source: str) -> list[str]:
    """Where a module reads or writes files, as `line: sentence`."""
    readers = {"open", "torch.load", "torch.save", "np.load", "numpy.load", "np.save", "json.load", "json.dump"}
    methods = ("read_text", "write_text", "read_bytes", "write_bytes", "open")
    libraries = {"soundfile", "safetensors", "huggingface_hub", "pathlib", "shutil", "tempfile", "av"}
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and (_called(node) in readers or _called(node).rpartition(".")[2] in methods):
            found.append((node.lineno, f"calls {_called(node)}"))
    for line, name in imported(ast.parse(source), "fromnoise.tasks.any", is_package=False):
        if name.split(".")[0] in libraries:
            found.append((line, f"imports {name}"))
    return [f"{line}: {fault}" for line, fault in sorted(found)]


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_imports_only_what_its_room_may(path: Path):
    found = forbidden_imports(path.read_text(encoding="utf-8"), dotted(path), path.name == "__init__.py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_has_no_dangerous_or_device_bound_calls(path: Path):
    found = [f"{dotted(path)}:{fault}" for fault in faults(path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_tasks_never_touch_files():
    tasks = sorted((PACKAGE / "tasks").rglob("*.py"))
    found = [f"{dotted(path)}:{fault}" for path in tasks for fault in file_access(path.read_text(encoding="utf-8"))]
    assert tasks
    assert not found, "\n".join(found)


def test_every_room_of_the_package_is_in_the_table():
    rooms = {room_of(dotted(path)) for path in MODULES}
    assert rooms <= MAY_IMPORT.keys(), f"add to MAY_IMPORT, and to docs/architecture.md: {rooms - MAY_IMPORT.keys()}"


@pytest.mark.parametrize(
    ("module", "line", "is_package"),
    [
        ("fromnoise.processes.vp", "from fromnoise.backbones.tcunet import TCUNetConfig", False),
        ("fromnoise.processes.vp", "from ..frontends import STFT", False),
        ("fromnoise.samplers", "from ..denoiser import Denoiser", True),
        ("fromnoise.samplers.ode", "import fromnoise.predictions", False),
        ("fromnoise.tasks.enhancement", "from fromnoise.data.audio import read", False),
        ("fromnoise.denoiser", "from fromnoise import samplers", False),
        ("fromnoise.hub", "def f():\n    from fromnoise.cli import app", False),
    ],
)
def test_the_import_check_finds(module: str, line: str, is_package: bool):
    assert len(forbidden_imports(line, module, is_package)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("fromnoise.samplers.ode", "from fromnoise.processes.base import Process"),
        ("fromnoise.samplers.ode", "from .base import Sampler"),
        ("fromnoise.cli.app", "import fromnoise"),
        ("fromnoise.processes.vp", "import torch"),
    ],
)
def test_the_import_check_lets_pass(module: str, line: str):
    assert forbidden_imports(line, module) == []


@pytest.mark.parametrize(
    "line",
    [
        "x.cuda()",
        "make(x).cuda(0)",
        "eval('1')",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "try:\n    f()\nexcept:\n    g()",
        "pickle.load(f)",
        "from pickle import loads",
        "import joblib",
        "from __future__ import annotations",
    ],
)
def test_the_call_check_finds(line: str):
    assert len(faults(line)) == 1


@pytest.mark.parametrize(
    "line", ["net.eval()", "torch.load(p, weights_only=True)", "re.compile('x')", "torch.compile(f)"]
)
def test_the_call_check_lets_pass(line: str):
    assert faults(line) == []


@pytest.mark.parametrize("line", ["open(p)", "path.read_text()", "import soundfile", "torch.load(p)", "Path(p).open()"])
def test_the_file_check_finds(line: str):
    assert len(file_access(line)) == 1
