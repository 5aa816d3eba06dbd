"""Training run of an image tokenizer's decoder."""

import io
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np

from cogview.data.image_array import ImageArray, JoinedArrays, splits_of
from cogview.errors import UsageError
from cogview.evaluation.decoders import decoder_grid, evaluate_scales
from cogview.files import atomic_write_bytes
from cogview.image.decoder import RefiningDecoder
from cogview.image.tokenizer import ImageTokenizer, lossless_dtype
from cogview.recipes.config import DecoderRecipe
from cogview.runs.image_tokenizer import HELD_OUT_SPLITS, MAX_EVALUATED, NUM_SAMPLES, open_images
from cogview.runs.perception import perception_identity, perception_of
from cogview.runs.tokenizers import open_image_tokenizer, unless_bundled
from cogview.runs.training import DryRunResult, TrainingResult, carry_out
from cogview.runs.training_options import DecoderOptions
from cogview.training.decoder import DecoderTask


def train_decoder(recipe: DecoderRecipe, options: DecoderOptions) -> TrainingResult | DryRunResult | None:
    """Train a decoder for fixed codes and write grids of its pictures.

    Args:
        recipe: shape and training.
        options: its files, and the decoder's name.

    Returns:
        The result; None in all processes but the first.
    """
    data, out, start_from = options.data, options.out, options.start_from
    tokenizer = open_image_tokenizer(options.image_tokenizer)
    if recipe.size_pixels % tokenizer.downsampling_factor:
        raise UsageError(
            f"size_pixels must be a multiple of {tokenizer.downsampling_factor}, the pixels that one code stands for, "
            f"got {recipe.size_pixels}"
        )
    scales = recipe.decoder.scales
    name = options.name or "-".join(f"x{scale}" for scale in sorted(scales))
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"--name is the name of a folder: letters, digits, - and _, got {name!r}")
    recipe.decoder.check_codes(tokenizer.downsampling_factor)

    def by_scale(split: str, folder: Path) -> dict[int, ImageArray]:
        sizes = {scale: scale * recipe.size_pixels for scale in sorted({1, *scales})}
        return {scale: open_images(folder, size, split) for scale, size in sizes.items()}

    if not data:
        raise UsageError("--data names no pictures: give a folder")
    splits = splits_of(data[0])
    each_source = [by_scale("train", folder) for folder in data]
    images = {scale: JoinedArrays([one[scale] for one in each_source]) for scale in each_source[0]}
    held_out = {split: by_scale(split, data[0]) for split in HELD_OUT_SPLITS if split in splits}
    training = recipe.training
    needs_network = recipe.decoder.perceptual_weight > 0
    task = DecoderTask(
        recipe.decoder,
        tokenizer,
        images,
        seed=training.seed,
        batch_size=training.batch_size,
        perception=perception_of(options.perception, options.backbone) if needs_network else None,
    )
    source = None if start_from is None else _start_as(task.decoder, start_from, tokenizer)
    shown_by = next(iter(held_out.values()), each_source[0])
    shown = {scale: np.array(each.pixels[:NUM_SAMPLES]) for scale, each in shown_by.items()}

    left_out = [
        other
        for other, each in tokenizer.decoders.items()
        if other != name and set(each.config.scales) & set(scales)
    ]
    for other in left_out:
        drawn = ", ".join(str(scale) for scale in sorted(tokenizer.decoders[other].config.scales))
        print(
            f"cogview: the decoder {other} draws the sizes {drawn}, some of which this one draws too, so it is left "
            "out of the run's image tokenizer",
            file=sys.stderr,
        )

    def with_decoder() -> ImageTokenizer:
        """Return the image tokenizer with the current decoder in place of those of the same sizes."""
        others = {other: each for other, each in tokenizer.decoders.items() if other not in left_out}
        decoders = others | {name: task.trained()}
        return ImageTokenizer(tokenizer.autoencoder, held_out=tokenizer.held_out, decoders=decoders)

    def sample(num_steps: int) -> None:
        grid = io.BytesIO()
        decoder_grid(with_decoder(), shown, max(scales)).save(grid, "PNG")
        atomic_write_bytes(out / "samples" / f"step-{num_steps:08d}.png", grid.getvalue())

    def evaluate() -> dict[str, dict[str, float]]:
        drawing = with_decoder()
        return {
            split: evaluate_scales(
                drawing, {scale: each.pixels[:MAX_EVALUATED] for scale, each in pictures.items()}, scales
            )
            for split, pictures in held_out.items()
        }

    def export(folder: Path) -> None:
        whole = with_decoder()
        whole.decoders[name].half().float()  # half the file; encoder and codebook keep all their digits
        whole.save_pretrained(folder, lossless_dtype(whole))

    return carry_out(
        task,
        training,
        options,
        recipe={
            "decoder": recipe.decoder,
            "size_pixels": recipe.size_pixels,
            "image_tokenizer": tokenizer.fingerprint,
            "name": name,
            "start_from": source,
            "num_pictures": len(images[1]),
            "pictures": images[max(images)].fingerprint,
            **(
                {"perception": perception_identity(options.perception, options.backbone)}
                if needs_network
                else {}
            ),
        },
        sample=sample,
        export=export,
        evaluate=evaluate,
    )


def _start_as(decoder: RefiningDecoder, start_from: Path, tokenizer: ImageTokenizer) -> str:
    """Load the weights of a decoder of the same shape, and return its name.

    Raises:
        UsageError: there is none, or it is for other codes.
    """
    source = open_image_tokenizer(unless_bundled(start_from))
    if source.fingerprint != tokenizer.fingerprint:
        raise UsageError(
            f"--start-from {start_from} is for the codes of the image tokenizer {source.fingerprint}, wanted "
            f"{tokenizer.fingerprint}: start from a decoder for the same codes"
        )
    wanted = {key: value.shape for key, value in decoder.state_dict().items()}
    for name, each in source.decoders.items():
        weights = each.state_dict()
        if each.config.scales == decoder.config.scales and wanted == {k: v.shape for k, v in weights.items()}:
            decoder.load_state_dict(weights)
            return f"{name} {sha256(b''.join(value.numpy().tobytes() for value in weights.values())).hexdigest()}"
    found = ", ".join(source.decoders) or "none at all"
    raise UsageError(
        f"--start-from {start_from} holds no decoder of this shape and these scales, but {found}"
    )
