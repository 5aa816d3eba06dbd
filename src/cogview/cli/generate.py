"""`cogview generate`: draws pictures for texts."""

import secrets
import sys
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

from cogview.cli.drawing_display import PreviewSheet, check_preview, progress_display
from cogview.cli.drawing_run import DrawingRun, print_pictures
from cogview.cli.drawn_pictures import picture_folder, tell_kept
from cogview.cli.prompts import Prompts
from cogview.decoding.config import CacheName, DtypeName
from cogview.errors import UsageError
from cogview.files import sha256_of


def run(
    texts: tuple[str, ...],
    /,
    *,
    prompts: str | None = None,
    model: str | None = None,
    adapter: str | None = None,
    adapter_strength: float = 1.0,
    num_candidates: int = 4,
    keep: int | None = None,
    captioner: str | None = None,
    upscale: Literal[1, 2, 4] = 1,
    magnifier: str | None = None,
    size: int | None = None,
    seed: int | Literal["random"] = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float | None = None,
    sampler: Literal["gumbel", "inversion"] = "gumbel",
    balance_words: bool = False,
    image: Path | None = None,
    mask: str | None = None,
    keep_pixels: bool = False,
    rank_by: Literal["caption", "fit"] = "caption",
    out: Path = Path("out"),
    sheet_scale: int = 1,
    preview: Path | None = None,
    strict: bool = False,
    device: str | None = None,
    dtype: DtypeName | None = None,
    max_batch: int = 16,
    memory: str | None = None,
    cache: CacheName = "auto",
    json: bool = False,
) -> None:
    """Draw pictures for texts.

    Each call writes its pictures, and contact sheets of them all, into a new numbered folder and prints their paths. A
    picture is written as soon as it is done; if the command is stopped or killed, the same command goes on there. A
    picture's file holds its text, its seed and the other settings.

    Args:
        texts: what to draw, in Chinese or English; each text in quotation marks.
        prompts: a file with a text on each line, in UTF-8, or - for the standard input; in the place of texts.
        model: a model folder, the folder of a training run, or OWNER/NAME on the Hugging Face hub; the bundled model by
            default.
        adapter: draw with it: the name of one that the model has, or a folder, or the run that trained it.
        adapter_strength: let the adapter add so many times what it learnt to add: below 1 a style is weaker, and things
            are more as the model draws them without.
        num_candidates: pictures of each text.
        keep: how many of them to keep, the best by CapLoss, in this order; all, unranked, by default. Fewer need a
            captioner.
        captioner: rank with it: the name of one that the model has, or a folder, or the run that trained it; the
            model's own by default. If it is given, all candidates are ranked by default.
        upscale: draw those that are kept at 2 or 4 times the size that is encoded, by the image tokenizer's decoder, or
            by a magnifier if there is no decoder for that size.
        magnifier: upscale with it: the name of one that the model has, or a folder, or the run that trained it.
        size: of the pictures in pixels a side: 128, 256 or 512 for the bundled model, 256 by default; other models have
            the sizes that their image tokenizer's decoders draw. The codes are the same.
        seed: of the first candidate of each text, the next has the next seed. A seed always draws the same picture;
            random takes one that is told.
        temperature: below 1 prefers probable codes, above 1 levels them, 0 always takes the most probable.
        top_k: draw from so many most probable codes only.
        top_p: draw from the fewest codes that hold this share of the probability; 1 draws from all. The model's own by
            default.
        guidance: above 1, follow the text more closely than it was learnt, for models trained with some texts dropped;
            the model's own by default.
        sampler: how random numbers become codes. A picture's file names it; those that name none are drawn again by
            inversion.
        balance_words: give each word for people ("a doctor", 医生) a gender and a skin tone, in turn from seed to seed.
        image: draw a part of this picture anew, and leave the rest of its codes as they are.
        mask: which part of it: upper, lower, left or right, a share of the codes such as 0.3, elsewhere for each seed,
            or a picture of the same shape that is white there.
        keep_pixels: give back exactly the pixels of the image outside of the mask.
        rank_by: keep the best by CapLoss, or by how well the given codes behind what was drawn fit it.
        out: the folder in which the numbered folder is made.
        sheet_scale: enlarge the pictures on contact sheets so many times, by plain resampling; the files stay as drawn.
        preview: a PNG that shows all candidates while they grow, a few times a second; in few per cent of the time.
        strict: end with an error, rather than a warning, for words that the model has never seen.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
        dtype: of the weights; float32 on CPU, or int8 if they are stored so, and bfloat16 on a GPU by default. int8 is
            for CPUs, takes a quarter of float32's memory and is the fastest.
        max_batch: pictures that are worked on at once, at most.
        memory: of the whole process, such as 6GiB or 800MB: fewer pictures are worked on at once where more would need
            more; as much as there is by default.
        cache: what keys and values are held in; float16 halves them.
        json: print the result as JSON.
    """
    if not 1 <= sheet_scale <= 8:
        raise UsageError(f"--sheet-scale must be 1 to 8, got {sheet_scale}")
    if preview is not None:
        check_preview(preview)
    with Prompts(texts, prompts) as asked:
        import torch

        import cogview
        from cogview.cli.told_pictures import tell_decoded
        from cogview.generation.options import PictureOptions
        from cogview.generation.picture_task import PictureTask
        from cogview.generation.previews import PreviewOptions
        from cogview.runs.chosen_adapters import take_adapter, weights_of

        options = PictureOptions(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance=guidance,
            sampler=sampler,
            adapter=adapter,
            adapter_strength=adapter_strength,
            strict=strict,
            image=image,
            mask=mask,
            captioner=captioner,
            upscale=upscale,
            magnifier=magnifier,
            size_pixels=size,
            balance_words=balance_words,
            keeps_pixels=keep_pixels,
            rank_by=rank_by,
        )
        pipeline = cogview.load(model, device, dtype, max_batch=max_batch, memory=memory, cache=cache)
        options = replace(
            options,
            adapter=take_adapter(pipeline, "adapter", adapter),
            captioner=take_adapter(pipeline, "captioner", captioner),
            magnifier=take_adapter(pipeline, "magnifier", magnifier),
        )
        first_seed = random_seed() if seed == "random" else seed
        # What cannot be drawn is found out before a folder is made.
        task = PictureTask.of(pipeline.model, options, num_candidates, keep, first_seed)
        template, sampled = task.codes.template, task.codes.sampling
        num_codes, factor = template.num_codes_per_image, pipeline.image_tokenizer.downsampling_factor
        shown_size = template.grid_columns * factor, template.grid_rows * factor
        if upscale > 1 and task.magnifier is None:
            tell_decoded(pipeline)
        if not balance_words:  # else the texts that are drawn are others
            asked.check(pipeline.text_tokenizer, task.max_text_pieces)
            asked.tell_unknown(lambda texts: pipeline.model.reading(texts, options.adapter, strict))
        settings = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": sampled.top_p,
            "guidance": sampled.guidance,
            "sampler": sampler,
            "balance_words": balance_words,
            "model": model or "bundled",
            **({} if adapter is None else {"adapter": adapter, "adapter_strength": adapter_strength}),
            **({} if upscale == 1 else {"upscale": upscale}),
            **({} if magnifier is None else {"magnifier": magnifier}),
            **({} if image is None else {"image": str(image), "mask": mask, "keeps_pixels": keep_pixels}),
            "size_pixels": task.size_pixels,
            "device": str(pipeline.device),
            "dtype": str(pipeline.dtype).removeprefix("torch."),
            **({} if cache == "auto" else {"cache": cache}),
        }
        by_captioner = task.ranking is not None and rank_by == "caption"
        rankers = [options.captioner or pipeline.captioner_names[0]] if by_captioner else []
        enlargers = [options.magnifier or pipeline.magnifier_names[0]] if task.magnifier else []
        request = {
            "verb": "generate",
            "texts": asked.fingerprint,
            "num_candidates": num_candidates,
            "keep": keep,
            "seed": seed,
            **settings,
            "weights": weights_of(pipeline, options.adapter, *rankers, *enlargers),
            "captioner": captioner,
            "rank_by": rank_by,
            "files": [sha256_of(Path(path)) for path in (image, mask) if path and Path(path).is_file()],
            "sheet_scale": sheet_scale,  # which says what is on which sheet
            "versions": [cogview.__version__, torch.__version__],
        }
        with picture_folder(out, request, {"seed": first_seed}) as folder:
            run = DrawingRun(
                task=task,
                prompts=asked,
                num_candidates=num_candidates,
                keep=keep if task.ranking else None,
                seed=folder.chosen["seed"],
                settings=settings,
                folder=folder,
                picture_height=task.size_pixels
                * template.grid_rows
                // max(template.grid_rows, template.grid_columns),
                sheet_scale=sheet_scale,
            )
            tell_kept(folder, len(asked) * run.num_kept)
            if seed == "random":
                print(f"cogview: seed {run.seed}", file=sys.stderr)
            with ExitStack() as stack:
                displays = [
                    stack.enter_context(progress_display(run.num_left, run.num_codes_left, num_codes))
                ]
                if preview is not None:
                    sheet = PreviewSheet(preview, shown_size)
                    stack.callback(sheet.write)
                    displays.append(sheet)
                stack.enter_context(warnings.catch_warnings())
                if not balance_words:  # told before
                    warnings.filterwarnings("ignore", r"\d+ of \d+ texts have more than")
                    warnings.filterwarnings("ignore", "the model has (hardly ever, or )?never")
                run.draw(displays, None if preview is None else PreviewOptions())
            folder.finish()
            run.warn()
            if run.work.num_pictures:
                print(f"cogview: {run.work.line}", file=sys.stderr)
            print_pictures(run, json)


def random_seed() -> int:
    """Return a seed that nobody can foretell, short enough to be typed."""
    return secrets.randbelow(2**31)
