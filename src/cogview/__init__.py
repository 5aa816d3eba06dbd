"""CogView, rebuilt: pictures from words by an autoregressive transformer.

    import cogview

    pictures = cogview.load().generate("蓝色背景上的一只猫和一个苹果")
    pictures[0].image.save("cat.png")

Names are imported at first use, so that `import cogview` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cogview.data.token_report import TokenizeReport
    from cogview.errors import CogViewError, UsageError
    from cogview.generation.loading import load
    from cogview.generation.picture_events import GeneratedImage, PictureDone, PicturePreview
    from cogview.generation.pipeline import Pipeline
    from cogview.generation.previews import PreviewOptions
    from cogview.image.tokenizer import ImageTokenizer, load_image_tokenizer
    from cogview.runs.data_options import TokenizeOptions
    from cogview.runs.evaluate import evaluate
    from cogview.runs.evaluation import EvaluationResult
    from cogview.runs.evaluation_options import (
        AnswersOptions,
        AttentionEvaluationOptions,
        CompositionEvaluationOptions,
        ModelEvaluationOptions,
        QuestionnaireOptions,
        TextToImageEvaluationOptions,
        TokenizerEvaluationOptions,
    )
    from cogview.runs.tokenize import tokenize
    from cogview.runs.train import train
    from cogview.runs.training import TrainingResult
    from cogview.runs.training_options import (
        CaptioningOptions,
        DecoderOptions,
        ImageTokenizerOptions,
        StyleOptions,
        SuperResolutionOptions,
        TextToImageOptions,
        VQGANOptions,
    )
    from cogview.sequence.template import TextToImageTemplate
    from cogview.sequence.vocabulary import Vocabulary
    from cogview.text.tokenizer import TextTokenizer
    from cogview.transformer.config import TransformerConfig
    from cogview.transformer.model import Transformer

    __version__: str

__all__ = [
    "AnswersOptions",
    "AttentionEvaluationOptions",
    "CaptioningOptions",
    "CogViewError",
    "CompositionEvaluationOptions",
    "DecoderOptions",
    "EvaluationResult",
    "GeneratedImage",
    "ImageTokenizer",
    "ImageTokenizerOptions",
    "ModelEvaluationOptions",
    "PictureDone",
    "PicturePreview",
    "Pipeline",
    "PreviewOptions",
    "QuestionnaireOptions",
    "StyleOptions",
    "SuperResolutionOptions",
    "TextToImageEvaluationOptions",
    "TextToImageOptions",
    "TextToImageTemplate",
    "TextTokenizer",
    "TokenizeOptions",
    "TokenizeReport",
    "TokenizerEvaluationOptions",
    "TrainingResult",
    "Transformer",
    "TransformerConfig",
    "UsageError",
    "VQGANOptions",
    "Vocabulary",
    "evaluate",
    "load",
    "load_image_tokenizer",
    "tokenize",
    "train",
]

_HOMES = {
    "AnswersOptions": "runs.evaluation_options",
    "AttentionEvaluationOptions": "runs.evaluation_options",
    "CaptioningOptions": "runs.training_options",
    "CogViewError": "errors",
    "CompositionEvaluationOptions": "runs.evaluation_options",
    "DecoderOptions": "runs.training_options",
    "EvaluationResult": "runs.evaluation",
    "GeneratedImage": "generation.picture_events",
    "ImageTokenizer": "image.tokenizer",
    "ImageTokenizerOptions": "runs.training_options",
    "ModelEvaluationOptions": "runs.evaluation_options",
    "PictureDone": "generation.picture_events",
    "PicturePreview": "generation.picture_events",
    "Pipeline": "generation.pipeline",
    "PreviewOptions": "generation.previews",
    "QuestionnaireOptions": "runs.evaluation_options",
    "StyleOptions": "runs.training_options",
    "SuperResolutionOptions": "runs.training_options",
    "TextToImageEvaluationOptions": "runs.evaluation_options",
    "TextToImageOptions": "runs.training_options",
    "TextToImageTemplate": "sequence.template",
    "TextTokenizer": "text.tokenizer",
    "TokenizeOptions": "runs.data_options",
    "TokenizeReport": "data.token_report",
    "TokenizerEvaluationOptions": "runs.evaluation_options",
    "TrainingResult": "runs.training",
    "Transformer": "transformer.model",
    "TransformerConfig": "transformer.config",
    "UsageError": "errors",
    "VQGANOptions": "runs.training_options",
    "Vocabulary": "sequence.vocabulary",
    "evaluate": "runs.evaluate",
    "load": "generation.loading",
    "load_image_tokenizer": "image.tokenizer",
    "tokenize": "runs.tokenize",
    "train": "runs.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("cogview")
    if name not in _HOMES:
        raise AttributeError(f"module 'cogview' has no attribute '{name}'")
    value = _import_at_rest(f"cogview.{_HOMES[name]}", name)
    globals()[name] = value
    return value


def _import_at_rest(module: str, name: str) -> Any:
    """Import with garbage collection off, whose cost grows with each of PyTorch's modules."""
    import gc

    if not gc.isenabled() or gc.get_freeze_count():
        return getattr(import_module(module), name)
    gc.disable()
    try:
        return getattr(import_module(module), name)
    finally:
        # Moves all objects to the oldest generation, as a collection would, without leaving any frozen.
        gc.freeze()
        gc.unfreeze()
        gc.enable()


def __dir__() -> list[str]:
    """Return the public names, including those not yet imported."""
    return [*__all__, "__version__"]
