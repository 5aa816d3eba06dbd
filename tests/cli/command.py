"""Runs the command as its users do, in a process of its own, or within the tests where that is enough."""

import os
import subprocess
import sys
from pathlib import Path

MAIN = "import sys; from cogview.cli.main import main; sys.exit(main())"


def cogview(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `cogview ARGUMENTS` in a process of its own.

    Args:
        arguments: the words after the command.
        cwd: the working folder.
        variables: of the environment.
    """
    return subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
