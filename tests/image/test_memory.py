"""Finding the nearest of 8,192 codes takes little memory beside the encoder's own."""

import subprocess
import sys

import pytest

# Peaks are of a whole process, so each has its own; what lies there before is not counted.
_SCRIPT = """
import resource, sys, torch
from cogview.image.config import VQVAEConfig
from cogview.image.tokenizer import ImageTokenizer
from cogview.image.vqvae import VQVAE

config = VQVAEConfig(encoder_channels=(128, 128, 128), decoder_channels=(8, 8, 8))
tokenizer = ImageTokenizer(VQVAE(config))
images = torch.rand(8, 3, 256, 256).to(memory_format=torch.channels_last) * 2 - 1
tokenizer.encode(images[:1, :, :64, :64])  # libraries load their kernels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.no_grad():
    model = tokenizer.autoencoder
    out = model.encoder(model._normalise(images)) if sys.argv[1] == "encoder" else tokenizer.encode(images)
assert out.shape[0] == 8
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="peaks of processes are read in the way of Unix")
def test_encoding_takes_less_than_1_3_times_the_memory_of_the_encoder_alone() -> None:
    def peak(work: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, work], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    # A quarter of the release's width: its own encoder takes four times this, so the bound is stricter here.
    assert peak("codes") < 1.3 * peak("encoder")
