"""`cogview convert`: makes others' checkpoints ours."""

from pathlib import Path

from cogview.cli.report import print_result
from cogview.errors import CogViewError


def run(source: Path, out: Path, /, *, json: bool = False) -> None:
    """Make a folder of ours of another project's checkpoint, which is recognised by what it holds.

    Recognised are image tokenizers: the one that the authors released in 2021 (a .pt file with enc_b, quantize_t and
    dec), and VQGANs of the layout in which they were first published (encoder.down, decoder.up, quantize.embedding).
    Nothing in a checkpoint is run: a file that asks for it is refused.

    Args:
        source: the checkpoint.
        out: the folder to make.
        json: print the result as JSON.
    """
    from cogview.interop.checkpoint_file import read_state_dict
    from cogview.interop.released_vqvae import convert_released_vqvae, is_released_vqvae
    from cogview.interop.taming import convert_taming_vqgan, is_taming_vqgan

    layouts = ((is_released_vqvae, convert_released_vqvae), (is_taming_vqgan, convert_taming_vqgan))
    tensors = read_state_dict(source)
    convert = next((convert for is_this, convert in layouts if is_this(tensors)), None)
    if convert is None:
        names = ", ".join(list(tensors)[:3])
        raise CogViewError(
            f"{source}: a checkpoint of an unknown layout ({len(tensors)} tensors: {names}, ...); "
            "'cogview convert --help' lists those that are known"
        )
    try:
        tokenizer = convert(tensors)
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
