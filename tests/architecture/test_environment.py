"""What is installed beside us, what we declare, and that the core stands alone."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fromnoise.cli.extras import CORE, EXTRAS, UNWANTED

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Rooms whose modules may need an extra the moment they are imported.
NEED_EXTRAS = {"training", "evaluation", "recipes", "web"}


def distribution_name(requirement: str) -> str:
    """`PyYAML>=6; extra == 'x'` -> `pyyaml`: lower case, every run of -_. one hyphen."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s;\[<>=!~(]", requirement.strip(), maxsplit=1)[0]).lower()


def with_dependencies(names: set[str]) -> set[str]:
    """The distributions and all that they require without extras, as far as it is installed."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [distribution_name(r) for r in requirements if "extra ==" not in r.replace('"', "'")]
    return found


def test_no_cuda_satellite_entered_the_environment():
    installed = {distribution_name(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    assert "torch" in installed
    assert not installed & UNWANTED, "these break a CPU torch and what probes for them; find who requires them"


def test_installed_lightning_is_not_a_malicious_release():
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    assert installed.get("lightning") not in {"2.6.2", "2.6.3"}
    assert "lightning!=2.6.2,!=2.6.3" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_the_core_table_equals_the_declared_dependencies():
    assert {distribution_name(r) for r in PROJECT["dependencies"]} == {distribution_name(name) for name in CORE}


def test_core_dependencies_have_lower_bounds_only():
    assert [r for r in PROJECT["dependencies"] if not re.fullmatch(r"[A-Za-z_]+>=[\d.]+", r)] == []


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_extras_table_equals_the_declared_extra(extra: str):
    declared: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        inner = re.fullmatch(r"fromnoise\[(\w+)\]", requirement)
        declared |= set(PROJECT["optional-dependencies"][inner[1]] if inner else [requirement])
    assert {distribution_name(r) for r in declared} == {distribution_name(name) for name in EXTRAS[extra]}


BLOCKED_IMPORT = """
import importlib, pkgutil, sys

blocked = set({blocked!r})

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked by the test)", name=name)

sys.meta_path.insert(0, Absent())
import fromnoise

failed = []
for module in pkgutil.walk_packages(fromnoise.__path__, "fromnoise."):
    if module.name.split(".")[1] in {skipped!r}:
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        failed.append(f"{{module.name}}: {{error}}")
print("\\n".join(failed))
print(f"imported {{len([m for m in sys.modules if m.startswith('fromnoise.')])}} modules")
sys.exit(bool(failed))
"""


def test_core_modules_import_with_nothing_but_the_core_dependencies():
    core = with_dependencies({distribution_name(name) for name in CORE} | {"pip", "setuptools"})
    blocked = [
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not core & {distribution_name(d) for d in distributions} and module != "fromnoise"
    ]
    assert "pytest" in blocked, "the test's own tools must be among the blocked modules, or nothing is blocked"
    blocked += [module for packages in EXTRAS.values() for module in packages.values()]
    code = BLOCKED_IMPORT.format(blocked=sorted(set(blocked)), skipped=NEED_EXTRAS)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
