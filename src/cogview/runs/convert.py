"""Conversion of checkpoints and token sets, to and from other projects' layouts."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.files import sha256_of
from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
from cogview.interop import binary_tokens, released_transformer
from cogview.interop.checkpoint_file import read_state_dict
from cogview.interop.checkpoint_folder import find_weights, has_weights, is_index, read_shards
from cogview.interop.hub_source import download_source, is_hub_source
from cogview.interop.other_projects import kind_of_folder, refuse_other_formats
from cogview.interop.rudalle import convert_rudalle
from cogview.interop.rudalle_layout import is_rudalle
from cogview.interop.tokenizer_source import convert_tensors, prefix_in
from cogview.interop.weights import ConvertedTokenizer
from cogview.models.config import find_model_folder
from cogview.models.folder import load_pretrained, save_pretrained
from cogview.models.pretrained import PretrainedModel
from cogview.runs.data_options import ConvertOptions
from cogview.runs.progress_bar import progress_bar
from cogview.runs.tokenizers import open_image_tokenizer, open_text_tokenizer


class Conversion(NamedTuple):
    """Result of a conversion: plain facts, and a description and notes for people."""

    facts: dict[str, Any]
    lines: list[str]


def convert(options: ConvertOptions, origin: Mapping[str, str] = MappingProxyType({})) -> Conversion:
    """Convert another project's checkpoint or token set to this program's layout, or back.

    Args:
        options: source and target.
        origin: repository and revision of a source that was downloaded.

    Raises:
        UsageError: an option does not apply to the source, or one is missing.
        CogViewError: the source is missing, damaged or of an unknown layout.
    """
    source, to = options.source, options.to
    if options.download:
        return _downloaded(options)
    if not source.exists():
        hint = ", or give --download for the Hugging Face hub's" if is_hub_source(str(source)) else ""
        raise CogViewError(f"{source}: no such file or folder; check the path{hint}")
    if to == "released" and (source / "manifest.json").is_file():
        _refuse_others(options)
        return _tokens_to_released(source, options.out)
    if to == "int8":
        _refuse_others(options)
        return _to_int8(source, options.out)
    if to == "released":
        _refuse_others(options, "num_ranks")
        return _transformer_to_released(
            source, options.out, 1 if options.num_ranks is None else options.num_ranks
        )
    if source.is_file() and binary_tokens.is_binary_tokens(source):
        _refuse_others(options, "text_tokenizer", "image_tokenizer")
        return _tokens(options)
    return _checkpoint(options, origin)


def _downloaded(options: ConvertOptions) -> Conversion:
    """Download a checkpoint and convert it."""
    if options.to != "cogview":
        raise UsageError("--download is for other projects' checkpoints: leave --to out")
    if options.source.exists():
        raise UsageError(
            f"{options.source} is here, and --download is for the Hugging Face hub: leave it out"
        )

    got = download_source(str(options.source), _announce)
    origin = {"repository": got.repository, "revision": got.revision}
    words, pictures = (path and _here(path) for path in (options.text_tokenizer, options.image_tokenizer))
    local = replace(options, source=got.path, download=False, text_tokenizer=words, image_tokenizer=pictures)
    return convert(local, origin)


def _announce(names: Sequence[str], num_bytes: int) -> None:
    """Tell a download's size before it begins."""
    print(f"cogview: downloading {', '.join(names)}, {num_bytes / 1e6:,.0f} MB", file=sys.stderr)


def _here(path: Path) -> Path:
    """Return a tokenizer's path, downloaded if it is only on the hub."""
    is_on_hub = not path.exists() and is_hub_source(str(path)) and ":" in str(path)
    return download_source(str(path), _announce).path if is_on_hub else path


def _opened_image_tokenizer(path: Path | None) -> ImageTokenizer | None:
    """Open an image tokenizer: a folder of ours, or another project's checkpoint, which is converted first."""
    if path is None:
        return None
    if not path.is_file() and (not path.is_dir() or kind_of_folder(path) is None):
        return open_image_tokenizer(path)
    if path.is_file():
        tensors = read_state_dict(path)
        if is_rudalle(tensors) or released_transformer.is_released_transformer(tensors):
            raise UsageError(f"--image-tokenizer {path} is a transformer: give an image tokenizer")
    with tempfile.TemporaryDirectory() as folder:
        convert(ConvertOptions(source=path, out=Path(folder) / "converted"))
        return load_image_tokenizer(Path(folder) / "converted")


def _refuse_others(options: ConvertOptions, *used: str) -> None:
    """Refuse options that do not apply to the source."""
    names = (
        "task",
        "text_tokenizer",
        "image_tokenizer",
        "num_heads",
        "num_ranks",
        "sequence",
        "kernel_sizes",
        "pixel_range",
    )
    for name in names:
        if getattr(options, name) is not None and name not in used:
            raise UsageError(f"--{name.replace('_', '-')} does not apply to this source: leave it out")


def _checkpoint(options: ConvertOptions, origin: Mapping[str, str]) -> Conversion:
    """Convert weights of any known layout."""
    refuse_other_formats(options.source)
    if _is_folder_of_a_package(options.source):
        options = replace(options, source=find_weights(options.source))
    source = options.source
    if is_index(source):
        _refuse_others(options)
        tensors, files = read_shards(source, partial(prefix_in, source))
        return _saved_tokenizer(convert_tensors(source, tensors, None), options.out, files, origin)
    ranks = released_transformer.find_ranks(source)
    tensors = read_state_dict(ranks[0])
    if source.is_dir() or released_transformer.is_released_transformer(tensors):
        _refuse_others(options, "task", "text_tokenizer", "image_tokenizer", "num_heads")
        return _transformer(ranks, options, origin)
    if is_rudalle(tensors):
        _refuse_others(options, "text_tokenizer", "image_tokenizer", "num_heads", "sequence", "kernel_sizes")
        return _rudalle(tensors, options, origin)
    _refuse_others(options, "pixel_range")
    tokenizer = convert_tensors(source, tensors, options.pixel_range)
    return _saved_tokenizer(tokenizer, options.out, [source], origin)


def _is_folder_of_a_package(source: Path) -> bool:
    """Return whether this is a folder of diffusers, transformers or the like, and none of the release.

    Raises:
        CogViewError: it is, but has no weights.
    """
    if not source.is_dir() or released_transformer.is_released_folder(source):
        return False
    kind = kind_of_folder(source)
    if kind is not None and not has_weights(source):
        raise CogViewError(f"{source} is {kind}, without a file of weights; copy it again")
    return has_weights(source)


def _saved_tokenizer(
    tokenizer: ConvertedTokenizer, out: Path, files: Sequence[Path], origin: Mapping[str, str]
) -> Conversion:
    """Write a converted image tokenizer.

    Args:
        tokenizer: to write.
        out: the folder to make.
        files: from which it was read.
        origin: repository and revision, if they were downloaded.
    """
    config = tokenizer.config
    source = {"layout": tokenizer.layout, **_source(files, origin)}
    factor = config.downsampling_factor
    facts = {
        "folder": out,
        "kind": "image tokenizer",
        **source,
        "num_codes": config.num_codes,
        "downsampling_factor": factor,
        "scales": list(config.scales),
        "fingerprint": tokenizer.save(out, source),
    }
    lines = [
        f"an image tokenizer of {config.num_codes:,} codes, each for {factor} x {factor} pixels, from "
        f"{tokenizer.layout}"
    ]
    if config.scales != (1,):
        lines.append(f"its decoder also draws pictures of {max(config.scales)} times the encoded size")
    return Conversion(facts, lines)


def _source(files: Sequence[Path], origin: Mapping[str, str]) -> dict[str, Any]:
    """Return where weights are from: repository and revision, if downloaded, and the files' checksums."""
    return {**origin, "sha256": _digests(files)}


def _source_of_model(
    files: Sequence[Path], origin: Mapping[str, str], options: ConvertOptions
) -> dict[str, Any]:
    """Return where a model is from: its weights, and those of its tokenizers that are files."""
    given = (options.text_tokenizer, options.image_tokenizer)
    tokenizers = _digests([path for path in given if path is not None and path.is_file()])
    return _source(files, origin) | ({"tokenizers_sha256": tokenizers} if tokenizers else {})


def _digests(files: Sequence[Path]) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in files}


def _source_sentences(layout: str, source: Mapping[str, Any]) -> str:
    """Return the card's sentences that tell where a model is from."""

    def listed(digests: Mapping[str, str]) -> str:
        return ", ".join(f"`{name}` (SHA-256 {digest})" for name, digest in digests.items())

    where = f" of {source['repository']} at {source['revision']}" if "repository" in source else ""
    tokenizers = source.get("tokenizers_sha256")
    with_them = f" With the tokenizers {listed(tokenizers)}." if tokenizers else ""
    return f"Converted from {layout}'s layout: {listed(source['sha256'])}{where}.{with_them}"


def _transformer(ranks: list[Path], options: ConvertOptions, origin: Mapping[str, str]) -> Conversion:
    """Convert a released transformer."""
    task = options.task or "text-to-image"
    words, pictures = options.text_tokenizer, options.image_tokenizer
    source = _source_of_model(ranks, origin, options)
    with progress_bar("converting", "tensors") as move:
        model = released_transformer.convert_released_transformer(
            ranks,
            options.out,
            task=task,
            num_heads=options.num_heads,
            text_tokenizer=None if words is None else open_text_tokenizer(words),
            image_tokenizer=_opened_image_tokenizer(pictures),
            origin=_source_sentences("the 2021 release", source),
            progress=move,
        )
    lines = [f"{_described(model)}, for {task}"]
    if task == "text-to-image":
        lines += _missing_tokenizers(options)
    facts = {
        "folder": options.out,
        "kind": "transformer",
        "task": task,
        "num_ranks": len(ranks),
        **source,
        **_facts(model),
    }
    return Conversion(facts, lines)


def _rudalle(tensors: Mapping[str, Tensor], options: ConvertOptions, origin: Mapping[str, str]) -> Conversion:
    """Convert a transformer of ruDALL-E or RuDOLPH."""
    words, pictures = options.text_tokenizer, options.image_tokenizer
    source = _source_of_model([options.source], origin, options)
    text_tokenizer = None if words is None else open_text_tokenizer(words)
    image_tokenizer = _opened_image_tokenizer(pictures)
    try:
        with progress_bar("converting", "tensors") as move:
            model, layout = convert_rudalle(
                tensors,
                options.out,
                num_heads=options.num_heads,
                sequence=options.sequence,
                kernel_sizes=options.kernel_sizes,
                text_tokenizer=text_tokenizer,
                image_tokenizer=image_tokenizer,
                origin=_source_sentences("ruDALL-E", source),
                progress=move,
            )
    except CogViewError as error:
        raise type(error)(f"{options.source}, of ruDALL-E's layout: {error}") from error
    lines = [f"{_described(model)}, of {layout.name}", *_missing_tokenizers(options)]
    if layout.num_right is not None:
        lines.append("it also writes captions, with the text after the picture")
    facts = {"folder": options.out, "kind": layout.name, **source, **_facts(model)}
    return Conversion(facts, lines)


def _missing_tokenizers(options: ConvertOptions) -> list[str]:
    """Say what a model without tokenizers cannot do."""
    lines = []
    if not options.text_tokenizer:
        lines.append("no text tokenizer: it reads no words until text.model is put there (--text-tokenizer)")
    if not options.image_tokenizer:
        lines.append(
            "no image tokenizer: it draws codes, no pixels, until image_tokenizer is put there (--image-tokenizer)"
        )
    return lines


def _transformer_to_released(source: Path, out: Path, num_ranks: int) -> Conversion:
    """Write a transformer in the release's layout."""
    model = released_transformer.write_released_transformer(find_model_folder(source), out, num_ranks)
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
    if config.head_size != released_transformer.HEAD_SIZE:
        lines.append(f"the layout does not tell its number of heads, {config.num_heads}")
    is_rounded = model.rounded_to is not None
    facts = {
        "folder": out,
        "kind": "released transformer",
        "num_ranks": num_ranks,
        "rounded": is_rounded,
        **_facts(model),
    }
    return Conversion(facts, lines)


def _to_int8(source: Path, out: Path) -> Conversion:
    """Write a model with int8 weights."""
    model = load_pretrained(find_model_folder(source), dtype=torch.int8)
    save_pretrained(model, out, torch.int8)
    facts = {"folder": out, "kind": "model in int8", **_facts(model)}
    return Conversion(facts, [f"{_described(model)}, in int8"])


def _facts(model: PretrainedModel) -> dict[str, Any]:
    config = model.config
    return {
        "num_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "num_heads": config.num_heads,
        "num_parameters": config.num_parameters,
        "text_tokenizer": model.text_fingerprint,
        "image_tokenizer": model.image_fingerprint,
    }


def _described(model: PretrainedModel) -> str:
    config = model.config
    return (
        f"a transformer of {config.num_layers} layers, width {config.hidden_size:,}, {config.num_heads} heads and "
        f"{config.num_parameters:,} parameters"
    )


def _tokens(options: ConvertOptions) -> Conversion:
    """Convert a token set of the release."""
    words, pictures = options.text_tokenizer, options.image_tokenizer
    if words is None or pictures is None:
        raise UsageError(
            f"{options.source} is a token set, which names no tokenizers: give those that made it with "
            "--text-tokenizer and --image-tokenizer"
        )
    num_pairs = binary_tokens.convert_binary_tokens(
        options.source, options.out, open_image_tokenizer(pictures), open_text_tokenizer(words)
    )
    facts = {"folder": options.out, "kind": "tokens", "num_pairs": num_pairs}
    return Conversion(facts, [f"tokens of {num_pairs:,} pairs"])


def _tokens_to_released(source: Path, out: Path) -> Conversion:
    """Write tokens as a token set of the release."""
    num_rows, num_clipped = binary_tokens.write_binary_tokens(source, out)
    lines = [f"a token set of {num_rows:,} rows"]
    if num_clipped:
        lines.append(
            f"{num_clipped:,} texts lost what follows their first {binary_tokens.NUM_TEXT_TOKENS} pieces"
        )
    facts = {"file": out, "kind": "released tokens", "num_rows": num_rows, "num_clipped": num_clipped}
    return Conversion(facts, lines)
