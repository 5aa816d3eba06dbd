"""Training run of a text tokenizer."""

from cogview.errors import UsageError
from cogview.recipes.config import TextTokenizerRecipe
from cogview.recipes.text_tokenizer import train_bundled_text_tokenizer, train_text_tokenizer_on
from cogview.runs.training_options import TextTokenizerOptions
from cogview.text.tokenizer import TextTokenizer


def train_text_tokenizer(recipe: TextTokenizerRecipe, options: TextTokenizerOptions) -> TextTokenizer:
    """Learn text pieces from the user's captions or those of the default data set.

    Args:
        recipe: captions and number of pieces.
        options: files.

    Returns:
        The tokenizer, which is also written.

    Raises:
        UsageError: the file exists, or there are fewer pieces than characters in the captions.
        CogViewError: there are no captions, or the default data set's sources cannot be downloaded.
    """
    if options.out.exists():
        raise UsageError(f"{options.out} already exists; delete it or choose another path")
    if options.data is None:
        return train_bundled_text_tokenizer(recipe, options.out)
    return train_text_tokenizer_on(options.data, options.out, recipe.tokenizer)
