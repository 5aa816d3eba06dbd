"""What holds for the whole house: its public names, its layers, its settings, the size and manners of its files."""

import ast
import importlib
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


def test_settings_can_be_read_without_torch() -> None:
    modules = [
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in SOURCES
        if path.name == "config.py"
    ]
    assert len(modules) >= 5
    assert "torch" not in loaded_by(f"import {', '.join(modules)}")


def test_the_rooms_are_those_of_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name.strip() for line in contracts[0]["layers"] for name in line.split("|")}
    rooms = {f"cogview.{path.parent.name}" for path in (ROOT / "src" / "cogview").glob("*/__init__.py")}
    files = {f"cogview.{path.stem}" for path in (ROOT / "src" / "cogview").glob("*.py")} - {
        "cogview.__init__"
    }
    assert rooms | files == layers
    for room in rooms:
        assert importlib.import_module(room).__doc__, room


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_for_and_can_be_read_in_one_go(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "a docstring"
    assert text.count("\n") < 400, "fewer than 400 lines"
    assert path.stem not in ("utils", "helpers", "misc", "common", "manager")


def test_nothing_is_unpickled() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "joblib", "dill"} & set(names), path
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and ast.unparse(node.func) == "torch.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("weights_only") == "True", path


def test_no_two_tests_have_one_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    doubles = sorted({name for name in names if names.count(name) > 1})
    assert not doubles, "pytest cannot tell them apart"
