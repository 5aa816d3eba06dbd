"""A run that learns the pieces of texts."""

from cogview.errors import UsageError
from cogview.recipes.config import TextTokenizerRecipe
from cogview.recipes.text_tokenizer import train_bundled_text_tokenizer, train_text_tokenizer_on
from cogview.runs.training_options import TextTokenizerOptions
from cogview.text.tokenizer import TextTokenizer


def train_text_tokenizer(recipe: TextTokenizerRecipe, options: TextTokenizerOptions) -> TextTokenizer:
    """Learn the pieces that texts are cut into, from one's own captions or those of the default data set.

    Args:
        recipe: what is learnt from, and how many pieces.
        options: files.

    Returns:
        The tokenizer, which is written as well.

    Raises:
        UsageError: the file is there already, or the pieces are fewer than the captions' characters.
        CogViewError: there are no captions, or what the default data set is made of cannot be fetched.
    """
    if options.out.exists():
        raise UsageError(f"{options.out} already exists; delete it or choose another path")
    if options.data is None:
        return train_bundled_text_tokenizer(recipe, options.out)
    return train_text_tokenizer_on(options.data, options.out, recipe.tokenizer)
