"""What holds for the whole package: its public names, what importing it costs, its settings."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cogview

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "cogview").rglob("*.py"))


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh Python has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_cogview_loads_nothing_heavy() -> None:
    assert loaded_by("import cogview").isdisjoint({"torch", "numpy", "PIL"})


def test_every_public_name_is_there() -> None:
    for name in cogview.__all__:
        assert getattr(cogview, name).__name__ == name
    assert set(dir(cogview)) == {*cogview.__all__, "__version__"}
    assert cogview.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cogview.nonsense  # noqa: B018


def test_public_names_for_type_checkers_are_those_for_python() -> None:
    tree = ast.parse((ROOT / "src" / "cogview" / "__init__.py").read_text())
    checked = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert checked == {name: f"cogview.{home}" for name, home in cogview._HOMES.items()}
    assert sorted(checked) == sorted(cogview.__all__)


def test_settings_and_verbs_can_be_read_without_torch_or_numpy() -> None:
    modules = [
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in SOURCES
        if path.name == "config.py" or path.stem.endswith("_options") or path.parent.name == "cli"
    ]
    assert len(modules) >= 5
    assert loaded_by(f"import {', '.join(modules)}").isdisjoint({"torch", "numpy"})
