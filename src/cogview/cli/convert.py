"""`cogview convert`: makes others' checkpoints ours."""

from pathlib import Path

from cogview.cli.report import print_result
from cogview.errors import CogViewError


def run(source: Path, out: Path, /, *, json: bool = False) -> None:
    """Make a folder of ours of another project's checkpoint, which is recognised by what it holds.

    Recognised are: the image tokenizer that the authors released in 2021 (a .pt file with enc_b, quantize_t and dec).
    Nothing in a checkpoint is run: a file that asks for it is refused.

    Args:
        source: the checkpoint.
        out: the folder to make.
        json: print the result as JSON.
    """
    from cogview.interop.checkpoint_file import read_state_dict
    from cogview.interop.released_vqvae import convert_released_vqvae, is_released_vqvae

    tensors = read_state_dict(source)
    if not is_released_vqvae(tensors):
        names = ", ".join(list(tensors)[:3])
        raise CogViewError(
            f"{source}: a checkpoint of an unknown layout ({len(tensors)} tensors: {names}, ...); "
            "'cogview convert --help' lists those that are known"
        )
    try:
        tokenizer = convert_released_vqvae(tensors)
    except CogViewError as error:
        raise CogViewError(f"{source}: {error}") from error
    tokenizer.save_pretrained(out)
    facts = {
        "folder": out,
        "kind": "image tokenizer",
        "num_codes": tokenizer.num_codes,
        "downsampling_factor": tokenizer.downsampling_factor,
        "fingerprint": tokenizer.fingerprint,
    }
    line = (
        f"an image tokenizer of {tokenizer.num_codes:,} codes, each for {tokenizer.downsampling_factor} x "
        f"{tokenizer.downsampling_factor} pixels"
    )
    print_result(facts, [line, str(out)], json)
