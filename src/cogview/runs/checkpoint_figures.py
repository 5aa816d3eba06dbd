"""Contents of a checkpoint's report: facts, samples, codes, attention, losses."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from cogview.data.content import digest_of_pixels
from cogview.evaluation.attention import attention_maps, comparison_of_heads, score_table
from cogview.evaluation.caption_set import CaptionSet, RealPictures
from cogview.evaluation.efficientnet import find_weights, load_efficientnet
from cogview.evaluation.reconstruction import evaluate_with_grid
from cogview.evaluation.report.sections import training_table
from cogview.evaluation.sharded_array import ShardedArray
from cogview.files import atomic_file, atomic_write_json, read_json, sha256_of
from cogview.generation.devices import resolve_device, resolve_dtype
from cogview.generation.options import CodeOptions
from cogview.generation.pipeline import Pipeline
from cogview.image.decoder import fingerprint_of_decoder
from cogview.models.config import find_model_folder, read_config
from cogview.models.folder import load_pretrained
from cogview.resumable import ResumableWork
from cogview.runs.evaluation_draws import model_identity, say_duration
from cogview.runs.model_options import ModelOptions, SamplingOptions
from cogview.runs.progress_bar import progress_bar
from cogview.training.metrics import read_metrics
from cogview.training.plot import loss_figure

_PICTURES_AT_ONCE = 32
_NUM_RECONSTRUCTED = 16


class Checkpoint:
    """A checkpoint, loaded for a report.

    Args:
        options: model and device.
    """

    def __init__(self, options: ModelOptions) -> None:
        self._name = options.model or "bundled"
        self._folder = find_model_folder(options.model)
        place = resolve_device(options.device)
        self._model = load_pretrained(self._folder, place, resolve_dtype(options.dtype, place))
        self.pipeline = Pipeline(self._model)

    @property
    def title(self) -> str:
        """Name on the model card, or the path."""
        heading = re.search(r"^# +(.+?) *$", self._model.card, re.MULTILINE)
        return heading[1] if heading else f"The model {self._name}"

    def facts(self) -> dict[str, Any]:
        """Return the report's facts about the model and its parts."""
        pipeline, template = self.pipeline, self.pipeline.template
        config, image_tokenizer = pipeline.transformer.config, pipeline.image_tokenizer
        factor = image_tokenizer.downsampling_factor
        sizes = " or ".join(
            f"{template.grid_columns * factor * scale} x {template.grid_rows * factor * scale}"
            for scale in image_tokenizer.scales
        )
        licence = re.search(r"\A---\n(?:.*\n)*?license: *(.+)\n(?:.*\n)*?---", self._model.card)
        return {
            "name": self._name,
            "licence": licence[1].strip() if licence else "",
            "draws": f"{sizes} pixels as {template.grid_columns} x {template.grid_rows} codes, from up to "
            f"{template.max_text_pieces} pieces",
            "parts": [
                {
                    "part": "transformer",
                    "shape": f"{config.num_layers} layers, width {config.hidden_size}, {config.num_heads} heads",
                    "parameters": config.num_parameters,
                    "fingerprint": self._model.fingerprint,
                },
                {
                    "part": "image tokenizer",
                    "shape": f"{image_tokenizer.num_codes:,} codes of {factor} x {factor} pixels",
                    "parameters": _num_parameters(image_tokenizer.autoencoder),
                    "fingerprint": image_tokenizer.fingerprint,
                },
                *(
                    {
                        "part": f"decoder {name}",
                        "shape": f"{len(decoder.config.scales)} sizes of the same codes",
                        "parameters": _num_parameters(decoder),
                        "fingerprint": fingerprint_of_decoder(decoder),
                    }
                    for name, decoder in image_tokenizer.decoders.items()
                ),
                {
                    "part": "text tokenizer",
                    "shape": f"{pipeline.text_tokenizer.num_pieces:,} pieces",
                    "parameters": None,
                    "fingerprint": pipeline.text_tokenizer.fingerprint,
                },
            ],
            "adapters": [
                {
                    "name": name,
                    "task": each.task,
                    "parameters": _num_parameters(each.transformer),
                    "licence": each.licence,
                }
                for name, each in pipeline.adapters.items()
            ],
            "trainings": training_table(self._model.card),
            "card": self._model.card,
            "config": read_config(self._folder),
        }

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], options: SamplingOptions, folder: Path
    ) -> tuple[dict[str, Any], Int64[np.ndarray, "n k r s"]]:
        """Draw the missing samples.

        Args:
            prompts: the texts.
            seeds: seeds for each text.
            options: sampling.
            folder: cache of the codes.

        Returns:
            All that the pictures depend on, and their codes.

        Raises:
            UsageError: the folder holds pictures of other settings, or the model cannot read a text.
        """
        pipeline = self.pipeline
        # Invalid sampling options fail here, before the folder records them.
        chosen = asdict(pipeline.drawer.sampling(CodeOptions(**options.sampling())))
        work = ResumableWork(
            folder,
            {"prompts": list(prompts), "seeds": list(seeds), **chosen, **model_identity(pipeline, None)},
        )
        kept = ShardedArray(
            work=work,
            name="codes",
            num_rows=len(prompts),
            rows_per_shard=max(1, _PICTURES_AT_ONCE // len(seeds)),
        )

        def codes_of(rows: range) -> np.ndarray:
            texts = [text for row in rows for text in [prompts[row]] * len(seeds)]
            codes = pipeline.generate_codes(texts, 1, list(seeds) * len(rows), **chosen).numpy()
            return codes.reshape(len(rows), len(seeds), *codes.shape[2:]).astype(np.int32)

        def estimated(seconds: float) -> None:
            if seconds:
                say_duration("drawing the other samples", seconds)

        with progress_bar("drawing samples", "pictures") as move:
            kept.fill(
                codes_of,
                progress=lambda done, num_rows: move(done * len(seeds), num_rows * len(seeds)),
                estimated=estimated,
            )
        return work.settings, kept.read_all().astype(np.int64)

    def pictures(self, codes: Int64[np.ndarray, "n k r s"]) -> list[list[Image.Image]]:
        """Decode codes at the model's default size."""
        size = self.pipeline.size_pixels
        decoder = self.pipeline.model.decoder
        return [list(decoder.decode_each(torch.from_numpy(row), size)) for row in codes]

    def attention(self, text: str, seed: int, codes: Int64[np.ndarray, "r s"]) -> dict[str, Any]:
        """Measure the scores of each head, and where its weights lie, while a picture is drawn.

        Args:
            text: the picture's text.
            seed: the picture's seed.
            codes: the picture's codes.
        """
        pieces = self.pipeline.template.clip(self.pipeline.text_tokenizer.encode(text))
        maps = attention_maps(self.pipeline.transformer, self.pipeline.template, pieces, codes, [(0, 0)])
        table = score_table(maps)
        return {"text": text, "seed": seed, "scores": table, "heads": comparison_of_heads(table)}

    def run(self) -> tuple[dict[str, Any] | None, Any]:
        """Return the facts of the training run and its loss figure, if the model lies in a run folder."""
        run = self._folder.parent
        if self._folder.name != "model" or not (run / "metrics.jsonl").is_file():
            return None, None
        config = dict(read_json(run / "config.json", "run"))
        lines = read_metrics(run / "metrics.jsonl")
        last = lines[-1] if lines else {"step": 0}
        evaluation = run / "evaluation.json"
        facts = {
            "command": config.get("command"),
            "seed": config.get("seed"),
            "device": config.get("device_name"),
            "precision": config.get("precision"),
            "commit": config.get("git_commit"),
            "versions": config.get("versions"),
            "num_steps": last["step"],
            "last": {name: value if math.isfinite(value) else None for name, value in last.items()},
            "evaluation": read_json(evaluation, "run") if evaluation.is_file() else {},
            "config": config,
        }
        return facts, loss_figure(lines)


def measure_tokenizer(
    checkpoint: Checkpoint, real: CaptionSet | None, folder: Path, batch_size: int, num_workers: int
) -> tuple[dict[str, Any] | None, Image.Image | None]:
    """Measure reconstructions of the image tokenizer, and return some originals with theirs.

    Args:
        checkpoint: holds the tokenizer.
        real: the pictures; None reuses the cached result.
        folder: cache of the result.
        batch_size: pictures per batch.
        num_workers: processes that decode pictures; 0 decodes in the main process.
    """
    tokenizer, template = checkpoint.pipeline.image_tokenizer, checkpoint.pipeline.template
    size = template.grid_rows * tokenizer.downsampling_factor
    weights = find_weights()
    request = {
        "image_tokenizer": tokenizer.fingerprint,
        "size_pixels": size,
        "backbone": None if weights is None else sha256_of(weights),
        "captions": None if real is None else real.fingerprint,
        "pictures": None if real is None else digest_of_pixels([each.picture for each in real.asked]),
    }
    path, grid = folder / "figures.json", folder / "reconstructions.png"
    if path.is_file() and grid.is_file():
        kept = dict(read_json(path, "evaluation"))
        compared = [name for name in request if real is not None or name not in ("captions", "pictures")]
        if all(kept["request"].get(name) == request[name] for name in compared):
            with Image.open(grid) as opened:
                return kept, opened.convert("RGB")
    if real is None:
        return None, None
    squares = RealPictures([each.picture for each in real.asked], size, num_workers)
    backbone = None if weights is None else load_efficientnet(weights, tokenizer.device)
    with progress_bar("measuring the image tokenizer", "pictures") as move:

        def batches() -> Iterator[UInt8[np.ndarray, "_ y x c"]]:
            remaining, num_done = iter(squares), 0
            while some := [np.asarray(each) for each in islice(remaining, batch_size)]:
                num_done += len(some)
                yield np.stack(some)
                move(num_done, len(real.asked))

        figures, drawn = evaluate_with_grid(tokenizer, batches(), backbone, _NUM_RECONSTRUCTED)
    result = {
        "request": request,
        "size_pixels": size,
        "num_pictures": len(real.asked) - len(squares.problems),
        "num_problems": len(squares.problems),
        "num_codes": tokenizer.num_codes,
        "figures": figures,
    }
    with atomic_file(grid) as file:
        drawn.save(file, "PNG")
    atomic_write_json(path, result)
    return result, drawn


def _num_parameters(module: torch.nn.Module) -> int:
    weights: Mapping[str, Tensor] = module.state_dict()
    return sum(each.numel() for each in weights.values())
