"""A whole model so small that a test makes it: random weights, and a text tokenizer trained on a few captions."""

from pathlib import Path

import torch

from cogview.image.config import VQVAEConfig
from cogview.image.tokenizer import ImageTokenizer
from cogview.image.vqvae import VQVAE
from cogview.models.folder import save_pretrained
from cogview.models.pretrained import PretrainedModel
from cogview.sequence.template import TextToImageTemplate
from cogview.sequence.vocabulary import Vocabulary
from cogview.text.config import TextTokenizerConfig
from cogview.text.tokenizer import TextTokenizer
from cogview.text.training import train_text_tokenizer
from cogview.transformer.config import TransformerConfig
from cogview.transformer.model import Transformer

CAPTIONS = (
    "a red cat above a dog",
    "一只猫和一个苹果",
    "two dogs on a blue ground",
    "蓝色背景上的一只狗",
) * 3


def tiny_text_tokenizer(folder: Path, captions: tuple[str, ...] = CAPTIONS) -> TextTokenizer:
    """Train a text tokenizer of about 300 pieces and keep it as `text.model` in a folder."""
    path = folder / "text.model"
    train_text_tokenizer(captions, path, TextTokenizerConfig(num_pieces=320))
    return TextTokenizer.from_file(path)


def tiny_image_tokenizer(num_codes: int = 32) -> ImageTokenizer:
    """Return a random image tokenizer with a downsampling factor of 4."""
    torch.manual_seed(1)
    config = VQVAEConfig(
        num_codes=num_codes,
        code_size=8,
        encoder_channels=(8, 8),
        encoder_blocks=(0, 0),
        decoder_channels=(8, 8),
        decoder_blocks=(0, 0),
    )
    vqvae = VQVAE(config)
    vqvae.quantizer.embed.copy_(torch.randn_like(vqvae.quantizer.embed))
    return ImageTokenizer(vqvae)


def tiny_model(
    folder: Path, card: str = "", guidance: float = 1.0, text_tokenizer: TextTokenizer | None = None
) -> PretrainedModel:
    """Return a random model that draws 16x16 pixels as 4x4 codes, reading up to 12 pieces.

    Args:
        folder: for the text tokenizer's file.
        card: the model card.
        guidance: its own.
        text_tokenizer: another than the usual one.
    """
    text_tokenizer = text_tokenizer or tiny_text_tokenizer(folder)
    image_tokenizer = tiny_image_tokenizer()
    vocabulary = Vocabulary(
        num_image_codes=image_tokenizer.num_codes, num_text_pieces=text_tokenizer.num_pieces
    )
    template = TextToImageTemplate(vocabulary=vocabulary, grid_rows=4, grid_columns=4, max_text_pieces=12)
    torch.manual_seed(2)
    transformer = Transformer(
        TransformerConfig(
            num_layers=2,
            hidden_size=32,
            num_heads=2,
            vocabulary_size=vocabulary.size,
            num_positions=template.num_positions,
        )
    )
    for parameter in transformer.parameters():
        # Random weights of the usual size give nearly the same distribution everywhere; these do not.
        torch.nn.init.normal_(parameter, std=0.3)
    return PretrainedModel(
        source=transformer.eval(),
        template=template,
        text_tokenizer=text_tokenizer,
        image_tokenizer=image_tokenizer,
        card=card,
        guidance=guidance,
    )


def tiny_pipeline_folder(tmp_path: Path) -> Path:
    """Write such a model and return its folder."""
    folder = tmp_path / "tiny-model"
    save_pretrained(tiny_model(tmp_path, card="# Tiny\n"), folder)
    return folder
