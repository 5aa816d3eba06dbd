"""Minimal model card."""

from cogview.image.tokenizer import ImageTokenizer
from cogview.sequence.template import TextToImageTemplate
from cogview.text.tokenizer import TextTokenizer
from cogview.transformer.config import TransformerConfig


def bare_card(
    config: TransformerConfig,
    template: TextToImageTemplate,
    text_tokenizer: TextTokenizer | None,
    image_tokenizer: ImageTokenizer | None,
    origin: str = "",
) -> str:
    """Return a minimal model card, with the header that the hub reads.

    Args:
        config: of the transformer.
        template: token order.
        text_tokenizer: of the model, if any.
        image_tokenizer: of the model, if any.
        origin: sentence that tells where the weights are from.
    """
    codes = f"{template.grid_rows}x{template.grid_columns} codes"
    pieces = images = "not in this folder"
    if text_tokenizer:
        pieces = f"{text_tokenizer.num_pieces:,} pieces, fingerprint {text_tokenizer.fingerprint}"
    if image_tokenizer:
        factor = image_tokenizer.downsampling_factor
        sizes = (factor * scale for scale in image_tokenizer.scales)
        shown = " or ".join(f"{template.grid_columns * size}x{template.grid_rows * size}" for size in sizes)
        codes = f"{shown} pixels as {codes}"
        images = f"{image_tokenizer.num_codes:,} codes, fingerprint {image_tokenizer.fingerprint}"
    return f"""---
library_name: cogview
pipeline_tag: text-to-image
---

# A CogView model

Draws {codes} from a text of up to {template.max_text_pieces} pieces.{f" {origin}" if origin else ""}

| part | size |
|---|---|
| transformer | {config.num_layers} layers, width {config.hidden_size}, {config.num_heads} heads, \
{config.num_parameters:,} parameters |
| text tokenizer | {pieces} |
| image tokenizer | {images} |

```python
import cogview

pictures = cogview.load("PATH OR REPOSITORY").generate("a cat")
```
"""
