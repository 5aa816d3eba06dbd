"""`cogview convert`: makes others' checkpoints and token sets ours, and ours the authors'."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cogview.cli.report import print_result
from cogview.errors import CogViewError, UsageError
from cogview.runs.progress_bar import progress_bar

if TYPE_CHECKING:
    from cogview.models.pretrained import PretrainedModel


def run(
    source: Path,
    out: Path,
    /,
    *,
    to: Literal["cogview", "released", "int8"] = "cogview",
    task: Literal["text-to-image", "captioning", "super-resolution"] | None = None,
    text_tokenizer: Path | None = None,
    image_tokenizer: Path | None = None,
    num_heads: int | None = None,
    num_ranks: int | None = None,
    json: bool = False,
) -> None:
    """Make a folder of ours of another project's checkpoint, which is recognised by what it holds.

    Recognised are the transformers that the authors released in 2021 (a folder with latest, or with
    mp_rank_00_model_states.pt); image tokenizers: the released one (a .pt file with enc_b, quantize_t and dec), and
    VQGANs of the layout in which they were first published (encoder.down, decoder.up, quantize.embedding); and the
    release's token sets. What trainers and wrappers put around weights is taken away. Nothing in a checkpoint is run,
    whatever it names.

    Args:
        source: the checkpoint or token set; with --to released, a model folder or tokens of ours; with --to int8, a
            model folder.
        out: the folder to make, or the file of a token set.
        to: cogview for folders of ours; released for the layout of the authors' release, in float16; int8 for a model
            folder of ours at a quarter of float32's bytes, whose matrices are rounded to 8 bits by rows.
        task: what a released transformer has learnt, which its weights do not tell: text-to-image by default. Of the
            others a folder is made that --captioner and --magnifier take beside the model.
        text_tokenizer: to put beside a released transformer or its tokens: the authors' SentencePiece file of 50,000
            pieces.
        image_tokenizer: to put beside them: the converted image tokenizer of 8,192 codes.
        num_heads: of a released transformer, whose weights do not tell; heads of 64 channels by default.
        num_ranks: with --to released, files of model parallelism to cut a transformer into; 1 by default.
        json: print the result as JSON.
    """
    from cogview.interop.binary_tokens import is_binary_tokens

    if not source.exists():
        raise CogViewError(f"{source}: no such file or folder; check the path")
    flags = {
        "--task": task,
        "--text-tokenizer": text_tokenizer,
        "--image-tokenizer": image_tokenizer,
        "--num-heads": num_heads,
        "--num-ranks": num_ranks,
    }
    if to == "released" and (source / "manifest.json").is_file():
        _refuse_others(flags, ())
        facts, lines = _tokens_to_released(source, out)
    elif to == "int8":
        _refuse_others(flags, ())
        facts, lines = _to_int8(source, out)
    elif to == "released":
        _refuse_others(flags, ("--num-ranks",))
        facts, lines = _transformer_to_released(source, out, 1 if num_ranks is None else num_ranks)
    elif source.is_file() and is_binary_tokens(source):
        _refuse_others(flags, ("--text-tokenizer", "--image-tokenizer"))
        facts, lines = _tokens(source, out, text_tokenizer, image_tokenizer)
    else:
        facts, lines = _checkpoint(source, out, flags)
    print_result(facts, [*lines, str(out)], json)


_Said = tuple[dict[str, Any], list[str]]
"""A result for programs and in lines for people."""


def _refuse_others(flags: Mapping[str, Any], used: tuple[str, ...]) -> None:
    """Refuse flags that mean nothing for what is converted."""
    for flag, value in flags.items():
        if value is not None and flag not in used:
            raise UsageError(f"{flag} means nothing for this source: leave it out")


def _checkpoint(source: Path, out: Path, flags: Mapping[str, Any]) -> _Said:
    """Convert weights of any known layout."""
    from cogview.interop.checkpoint_file import read_state_dict
    from cogview.interop.other_projects import project_of, refuse_other_formats
    from cogview.interop.released_transformer import find_ranks, is_released_transformer
    from cogview.interop.released_vqvae import convert_released_vqvae, is_released_vqvae
    from cogview.interop.taming import convert_taming_vqgan, is_taming_vqgan

    refuse_other_formats(source)
    ranks = find_ranks(source)
    tensors = read_state_dict(ranks[0])
    if source.is_dir() or is_released_transformer(tensors):
        _refuse_others(flags, ("--task", "--text-tokenizer", "--image-tokenizer", "--num-heads"))
        return _transformer(ranks, out, flags)
    _refuse_others(flags, ())
    layouts = ((is_released_vqvae, convert_released_vqvae), (is_taming_vqgan, convert_taming_vqgan))
    convert = next((convert for is_this, convert in layouts if is_this(tensors)), None)
    if convert is None:
        project = project_of(tensors.keys())
        what = f"{project}, which cannot be converted yet" if project else "a checkpoint of an unknown layout"
        raise CogViewError(
            f"{source}: {what} ({len(tensors)} tensors: {', '.join(list(tensors)[:3])}, ...); "
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
    return facts, [line]


def _transformer(ranks: list[Path], out: Path, flags: Mapping[str, Any]) -> _Said:
    """Convert a released transformer."""
    from cogview.interop.released_transformer import ReleasedTask, convert_released_transformer
    from cogview.runs.tokenizers import open_image_tokenizer, open_text_tokenizer

    task: ReleasedTask = "text-to-image" if flags["--task"] is None else flags["--task"]
    words, pictures = flags["--text-tokenizer"], flags["--image-tokenizer"]
    with progress_bar("converting", "tensors") as move:
        model = convert_released_transformer(
            ranks,
            out,
            task=task,
            num_heads=flags["--num-heads"],
            text_tokenizer=words and open_text_tokenizer(words),
            image_tokenizer=pictures and open_image_tokenizer(pictures),
            progress=move,
        )
    lines = [f"{_described(model)}, for {task}"]
    if task == "text-to-image" and not words:
        lines.append("no text tokenizer: it reads no words until text.model is put there (--text-tokenizer)")
    if task == "text-to-image" and not pictures:
        lines.append(
            "no image tokenizer: it draws codes, no pixels, until image_tokenizer is put there (--image-tokenizer)"
        )
    return {
        "folder": out,
        "kind": "transformer",
        "task": task,
        "num_ranks": len(ranks),
        **_facts(model),
    }, lines


def _transformer_to_released(source: Path, out: Path, num_ranks: int) -> _Said:
    """Write a transformer of ours in the release's layout."""
    from cogview.interop.released_transformer import HEAD_SIZE, write_released_transformer
    from cogview.models.config import find_model_folder

    model = write_released_transformer(find_model_folder(source), out, num_ranks)
    config = model.config
    lines = [f"{_described(model)}, as {num_ranks} {'rank' if num_ranks == 1 else 'ranks'}"]
    if model.rounded_to:
        lines.append("its weights were rounded to float16")
    if config.norm_scope != "tensor":
        lines.append(
            f"it learnt with the norm scope {config.norm_scope}, the authors' code computes that of the tensor: the "
            "results differ a little"
        )
    if config.attention_pattern != "dense":
        lines.append("the layout does not tell that its attention is sparse, nor by which numbers")
    if config.head_size != HEAD_SIZE:
        lines.append(f"the layout does not tell its number of heads, {config.num_heads}")
    is_rounded = model.rounded_to is not None
    facts = {
        "folder": out,
        "kind": "released transformer",
        "num_ranks": num_ranks,
        "rounded": is_rounded,
        **_facts(model),
    }
    return facts, lines


def _to_int8(source: Path, out: Path) -> _Said:
    """Write a model with int8 weights."""
    import torch

    from cogview.models.config import find_model_folder
    from cogview.models.folder import load_pretrained, save_pretrained

    model = load_pretrained(find_model_folder(source), dtype=torch.int8)
    save_pretrained(model, out, torch.int8)
    return {"folder": out, "kind": "model in int8", **_facts(model)}, [f"{_described(model)}, in int8"]


def _facts(model: "PretrainedModel") -> dict[str, Any]:
    config = model.config
    return {
        "num_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "num_heads": config.num_heads,
        "num_parameters": config.num_parameters,
        "text_tokenizer": model.text_fingerprint,
        "image_tokenizer": model.image_fingerprint,
    }


def _described(model: "PretrainedModel") -> str:
    config = model.config
    return (
        f"a transformer of {config.num_layers} layers, width {config.hidden_size:,}, {config.num_heads} heads and "
        f"{config.num_parameters:,} parameters"
    )


def _tokens(source: Path, out: Path, text_tokenizer: Path | None, image_tokenizer: Path | None) -> _Said:
    """Convert a token set of the release."""
    from cogview.interop.binary_tokens import convert_binary_tokens
    from cogview.runs.tokenizers import open_image_tokenizer, open_text_tokenizer

    if text_tokenizer is None or image_tokenizer is None:
        raise UsageError(
            f"{source} is a token set, which names no tokenizers: give those that made it with --text-tokenizer and "
            "--image-tokenizer"
        )
    num_pairs = convert_binary_tokens(
        source, out, open_image_tokenizer(image_tokenizer), open_text_tokenizer(text_tokenizer)
    )
    return {"folder": out, "kind": "tokens", "num_pairs": num_pairs}, [f"tokens of {num_pairs:,} pairs"]


def _tokens_to_released(source: Path, out: Path) -> _Said:
    """Write tokens of ours as a token set of the release."""
    from cogview.interop.binary_tokens import NUM_TEXT_TOKENS, write_binary_tokens

    num_rows, num_clipped = write_binary_tokens(source, out)
    lines = [f"a token set of {num_rows:,} rows"]
    if num_clipped:
        lines.append(f"{num_clipped:,} texts lost what follows their first {NUM_TEXT_TOKENS} pieces")
    facts = {"file": out, "kind": "released tokens", "num_rows": num_rows, "num_clipped": num_clipped}
    return facts, lines
