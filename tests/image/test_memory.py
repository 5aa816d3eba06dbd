"""Finding the nearest of 8,192 codes takes little memory beside the encoder's own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Peaks are of a whole process, so each has its own; what lies there before is not counted.
_SCRIPT = """
import sys, torch
from pathlib import Path
from cogview.image.config import VQVAEConfig
from cogview.image.tokenizer import ImageTokenizer
from cogview.image.vqvae import VQVAE

config = VQVAEConfig(encoder_channels=(128, 128, 128), decoder_channels=(8, 8, 8))
tokenizer = ImageTokenizer(VQVAE(config))
images = torch.rand(4, 3, 256, 256).to(memory_format=torch.channels_last) * 2 - 1
tokenizer.encode(images[:1, :, :64, :64])  # libraries load their kernels

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

# The peak that a process is born with is its parent's, so it is set back first.
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
with torch.no_grad():
    model = tokenizer.autoencoder
    out = model.encoder(model._normalise(images)) if sys.argv[1] == "encoder" else tokenizer.encode(images)
assert out.shape[0] == 4
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read in the way of Linux")
def test_encoding_takes_less_than_1_3_times_the_memory_of_the_encoder_alone() -> None:
    def peak(work: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, work], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    # A quarter of the release's width: its own encoder takes four times this, so the bound is stricter here.
    alone = peak("encoder")
    assert alone > 30_000, "four pictures of 128 channels at 128 x 128 are 34 MB"
    assert peak("codes") < 1.3 * alone
