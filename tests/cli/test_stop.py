"""A request to end leaves nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_tokenize_asked_to_end_cleans_up_and_says_so(tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "tokens"
    pictures.mkdir()
    for number in range(600):
        Image.new("RGB", (64, 64), (number % 256, 0, 0)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a colour")
    command = [
        sys.executable,
        "-m",
        "cogview",
        "tokenize",
        str(pictures),
        "--out",
        str(out),
        "--num-workers",
        "0",
    ]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path
    ) as process:
        deadline = time.monotonic() + 120
        while (
            process.poll() is None
            and not any(tmp_path.glob("tokens.unfinished"))
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "cogview: asked to end" in errors
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
