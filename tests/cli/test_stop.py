"""A request to end leaves nothing half-written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ASKED_TO_END_WHILE_ENCODING = """
import os, signal, sys
import cogview.data.shard_maker as shard_maker
from cogview.cli.main import main

encode = shard_maker.encode_pixels

def asked_to_end(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return encode(*arguments)

shard_maker.encode_pixels = asked_to_end
sys.exit(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_tokenize_asked_to_end_cleans_up_and_says_so(tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "tokens"
    pictures.mkdir()
    for number in range(600):
        Image.new("RGB", (64, 64), (number % 256, 0, 0)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a colour")
    words = ["tokenize", str(pictures), "--out", str(out), "--num-workers", "0"]
    ended = subprocess.run(
        [sys.executable, "-c", ASKED_TO_END_WHILE_ENCODING, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr == "cogview: asked to end\n"
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
