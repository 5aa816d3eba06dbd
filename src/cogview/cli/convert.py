"""`cogview convert`: makes others' checkpoints and token sets ours, and ours the authors'."""

from typing import Annotated

from cogview.cli.report import print_result
from cogview.runs.data_options import ConvertOptions
from cogview.runs.flags import FLAT


def run(options: Annotated[ConvertOptions, FLAT], *, json: bool = False) -> None:
    """Make a folder of ours of another project's checkpoint, which is recognised by what it holds.

    Recognised are the transformers that the authors released in 2021 (a folder with latest, or with
    mp_rank_00_model_states.pt); image tokenizers: the released one (a .pt file with enc_b, quantize_t and dec), and
    VQGANs of the layout in which they were first published (encoder.down, decoder.up, quantize.embedding); and the
    release's token sets. What trainers and wrappers put around weights is taken away. Nothing in a checkpoint is run,
    whatever it names.

    Args:
        options: what, and into what.
        json: print the result as JSON.
    """
    from cogview.runs.convert import convert

    made = convert(options)
    print_result(made.facts, [*made.remarks, str(options.out)], json)
