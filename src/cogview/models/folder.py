"""Model folders: all files that a model needs to draw pictures from text.

A folder holds `config.json`, `model.safetensors` (the transformer), `text.model`, `image_tokenizer/` and a card,
`README.md`; optionally `words.json` (known words), `guesses.safetensors` (see `cogview.decoding.guess_table`) and
`adapters/NAME/`. A transformer understands only the codes and pieces of its own tokenizers, so their fingerprints are
in its config, and others are refused. A converted transformer may lack a tokenizer: its config then has no fingerprint,
and any that fits in size is accepted.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogview.decoding.config import MAX_GUIDANCE, MIN_TOP_P, TOP_P
from cogview.decoding.guess_table import GUESSES_FILE, GuessTable
from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_json, atomic_write_text, read_bounded, read_card
from cogview.folders import atomic_folder, refuse_unlike
from cogview.image.config import FOLDER_NAME
from cogview.image.decoder_folder import DECODERS_NAME, refuse_lost_decoders
from cogview.image.tokenizer import load_image_tokenizer, lossless_dtype
from cogview.image.tokenizer_folder import TOKENIZER_FILES
from cogview.models.adapters import ADAPTER_FILES, find_adapters, refuse_lost_adapters, save_task_model
from cogview.models.card import bare_card
from cogview.models.config import (
    ADAPTERS_FOLDER,
    INT8_VERSION,
    MODEL_FORMAT,
    VERSION,
    read_config,
    read_text_case,
)
from cogview.models.pretrained import PretrainedModel
from cogview.models.weights import (
    fingerprint_of_transformer,
    stored_transformer,
    write_transformer,
)
from cogview.plain_json import section_from_json
from cogview.sequence.padded_text import template_class_of
from cogview.sequence.vocabulary import Vocabulary
from cogview.text.known_words import WORDS_FILE, KnownWords
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.config import TransformerConfig

REQUIRED_FILES = (
    "config.json",
    "model.safetensors",
    "text.model",
    "image_tokenizer/config.json",
    "image_tokenizer/model.safetensors",
)
_TOKENIZERS = {"text_tokenizer": "text.model", "image_tokenizer": FOLDER_NAME}
CARD_FILE = "README.md"
SAMPLES_FILE = "samples.png"
_MAX_SAMPLES_BYTES = 64 * 2**20
MODEL_FILES = (
    *REQUIRED_FILES,
    *(f"{FOLDER_NAME}/{name}" for name in TOKENIZER_FILES),
    *(f"{ADAPTERS_FOLDER}/*/{name}" for name in ADAPTER_FILES),
    CARD_FILE,
    SAMPLES_FILE,
    WORDS_FILE,
    GUESSES_FILE,
)


def save_pretrained(
    model: PretrainedModel,
    folder: Path,
    dtype: torch.dtype | None = None,
    read: Callable[[str], Iterable[Tensor]] | None = None,
) -> None:
    """Write a model folder, whole or not at all.

    Args:
        model: to write.
        folder: created, or replaced if it is a model folder.
        dtype: of the transformer's weights on disk, for instance `torch.float16` for half the size, or `torch.int8` for
            a quarter; unchanged by default. Adapters remain valid for the int8 form.
        read: returns each of the transformer's tensors, by name and in parts along its first axis, if they are not in
            memory; the model's own transformer may then be on the meta device.

    Raises:
        CogViewError: the folder holds something other than a model.
        UsageError: the weights were rounded on loading, and `dtype` does not ask for the rounded ones.
    """
    if model.rounded_to is not None and dtype != model.rounded_to:
        name = str(model.rounded_to).removeprefix("torch.")
        raise UsageError(
            f"the weights were rounded to {name} when the model was loaded, so saving it would lose digits for good: "
            f"load it with dtype='float32' to save it as it was, or save it with dtype=torch.{name}"
        )

    def refuse(existing: Path) -> None:
        refuse_unlike(existing, read_config, MODEL_FILES, "a model folder")
        refuse_lost_adapters(existing, list(model.adapters))
        for name, part in (
            ("text.model", model.text_tokenizer),
            (FOLDER_NAME, model.image_tokenizer),
            (SAMPLES_FILE, model.samples),
        ):
            if not part and (existing / name).exists():
                raise CogViewError(
                    f"{existing} has {name}, and this model has none, so it is not replaced: choose another path."
                )
        decoders = model.image_tokenizer.decoders if model.image_tokenizer else ()
        refuse_lost_decoders(existing / FOLDER_NAME / DECODERS_NAME, decoders)

    template = dataclasses.asdict(model.template)
    vocabulary = template.pop("vocabulary")
    dtype = dtype or (torch.int8 if model.prepared_dtype == torch.int8 else None)
    is_int8 = dtype == torch.int8
    config = {
        "format": MODEL_FORMAT,
        "version": INT8_VERSION if is_int8 else VERSION,
        "transformer": dataclasses.asdict(model.config),
        "vocabulary": vocabulary,
        "template": template,
        "text_tokenizer": model.text_fingerprint,
        "image_tokenizer": model.image_fingerprint,
        "guidance": model.guidance,
        "top_p": model.top_p,
        "text_case": model.text_case,
        **({"rounded_from": model.fingerprint} if is_int8 else {}),
    }
    with atomic_folder(folder, refuse) as unfinished:
        atomic_write_json(unfinished / "config.json", config)
        write_transformer(unfinished / "model.safetensors", model.latest, dtype, read)
        if model.text_tokenizer:
            model.text_tokenizer.save(unfinished / "text.model")
        if model.image_tokenizer:
            image_dtype = lossless_dtype(model.image_tokenizer)
            model.image_tokenizer.save_pretrained(unfinished / FOLDER_NAME, image_dtype)
        if model.words:
            model.words.save(unfinished)
        if model.guess_table:
            model.guess_table.save(unfinished)
        card = model.card or bare_card(
            model.config, model.template, model.text_tokenizer, model.image_tokenizer
        )
        atomic_write_text(unfinished / CARD_FILE, card)
        if model.samples:
            (unfinished / SAMPLES_FILE).write_bytes(model.samples)
        if model.adapters:
            # Of the written weights: those of the model may be rounded here, or come from `read`.
            written = stored_transformer(unfinished / "model.safetensors", model.config, "cpu", torch.float32)
            fingerprint = model.fingerprint if is_int8 else fingerprint_of_transformer(written.weights)
            for name, adapter in model.adapters.items():
                save_task_model(
                    adapter,
                    unfinished / ADAPTERS_FOLDER / name,
                    model,
                    dtype if dtype and not is_int8 else torch.float16,
                    fingerprint=fingerprint,
                )


def load_pretrained(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> PretrainedModel:
    """Read a model folder.

    Args:
        folder: from `save_pretrained`.
        device: of all parts.
        dtype: of the transformer's weights; by default float32, or int8 if stored so. The image tokenizer stays
            float32, since half precision shows in its pictures.

    Raises:
        CogViewError: the folder is missing, incomplete, of another kind or version, or its parts do not fit together.
    """
    config = read_config(folder)
    # Null means that the tokenizer is optional, and any that fits is accepted.
    absent = tuple(
        path
        for what, path in _TOKENIZERS.items()
        if config.get(what, "") is None and not (folder / path).exists()
    )
    missing = [
        name for name in REQUIRED_FILES if not (folder / name).is_file() and not name.startswith(absent)
    ]
    if missing:
        raise CogViewError(
            f"The model folder {folder} is incomplete, it lacks {', '.join(missing)}: copy or export it again."
        )
    source = folder / "config.json"
    vocabulary = section_from_json(Vocabulary, config, "vocabulary", source)
    template_class = template_class_of(config.get("template"))
    template = section_from_json(template_class, config, "template", source, vocabulary=vocabulary)
    transformer_config = section_from_json(TransformerConfig, config, "transformer", source)
    text_tokenizer = image_tokenizer = None
    if _TOKENIZERS["text_tokenizer"] not in absent:
        text_tokenizer = TextTokenizer.from_file(folder / "text.model")
    if FOLDER_NAME not in absent:
        image_tokenizer = load_image_tokenizer(folder / FOLDER_NAME, device=device)
    for what, tokenizer in (("text_tokenizer", text_tokenizer), ("image_tokenizer", image_tokenizer)):
        got = tokenizer and tokenizer.fingerprint
        if got != config.get(what, "none") and config.get(what, "none") is not None:
            raise CogViewError(
                f"The {what.replace('_', ' ')} in {folder} has fingerprint {got}, but the transformer learnt with "
                f"{config.get(what)}: put back the tokenizer that the model was trained with."
            )
    is_int8 = config["version"] == INT8_VERSION
    transformer = stored_transformer(
        folder / "model.safetensors",
        transformer_config,
        device,
        dtype or (torch.int8 if is_int8 else torch.float32),
    )
    model = PretrainedModel(
        source=transformer,
        template=template,
        text_tokenizer=text_tokenizer,
        image_tokenizer=image_tokenizer,
        card=read_card(folder / CARD_FILE),
        samples=_read_samples(folder / SAMPLES_FILE),
        guidance=_number(config, source, "guidance", 1.0, (0.0, float(MAX_GUIDANCE))),
        top_p=_number(config, source, "top_p", TOP_P, (MIN_TOP_P, 1.0)),
        words=KnownWords.in_folder(folder),
        text_case=read_text_case(config, source),
        guess_table=GuessTable.in_folder(folder),
        rounded_from=_rounded_from(config, source) if is_int8 else None,
    )
    return dataclasses.replace(model, adapters=find_adapters(folder / ADAPTERS_FOLDER, model))


def _read_samples(path: Path) -> bytes:
    """Return the bytes of the card's picture, b"" if there is none.

    Raises:
        CogViewError: the picture cannot be read, or is far too large.
    """
    if not path.exists():
        return b""
    try:
        return read_bounded(path, _MAX_SAMPLES_BYTES)
    except (OSError, ValueError) as error:
        raise CogViewError(f"{path} cannot be read ({error}): put another picture there, or none.") from error


def _number(
    config: dict[str, Any], source: Path, name: str, absent: float, bounds: tuple[float, float]
) -> float:
    """Return a number from a config, or the default of older configs."""
    number = config.get(name, absent)
    if (
        not isinstance(number, int | float)
        or isinstance(number, bool)
        or not bounds[0] <= number <= bounds[1]
    ):
        raise CogViewError(
            f"{source} has a {name} of {number!r}, wanted {bounds[0]:g} to {bounds[1]:g}: export the model again."
        )
    return float(number)


def _rounded_from(config: dict[str, Any], source: Path) -> str:
    """Return the fingerprint of the weights that int8 ones were rounded from."""
    fingerprint = config.get("rounded_from")
    if not isinstance(fingerprint, str) or not re.fullmatch(r"[0-9a-f]{16}", fingerprint):
        raise CogViewError(
            f"{source} has a rounded_from of {fingerprint!r}, wanted a fingerprint: export the model again."
        )
    return fingerprint
