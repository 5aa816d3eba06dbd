"""Extraction of the authors' 50,000-piece model from a downloaded wheel.

The model is Apache-2.0, in the wheel of another project, whose code is not needed:

    pip download --no-deps swissarmytransformer==0.1.10
    python -m cogview.text.released SwissArmyTransformer-0.1.10-py3-none-any.whl cog-pretrain.model
"""

import hashlib
import sys
import zipfile
from pathlib import Path

from cogview.errors import CogViewError, UsageError
from cogview.files import atomic_write_bytes

MEMBER = "SwissArmyTransformer/tokenization/embed_assets/chinese_sentencepiece/cog-pretrain.model"
SHA256 = "6ea6f4164152bc58d23e24e48f7bf4187aad72a32e97ec4b3acc832fe183cbc2"


def extract_released_model(wheel: Path, path: Path) -> None:
    """Write the authors' SentencePiece model to a file.

    Args:
        wheel: the downloaded wheel of `swissarmytransformer==0.1.10`.
        path: the model file to write.

    Raises:
        CogViewError: the wheel cannot be read, or has no such model.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            model = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise CogViewError(
            f"{wheel} has no released text tokenizer: give the file that "
            "`pip download --no-deps swissarmytransformer==0.1.10` fetches."
        ) from error
    if (digest := hashlib.sha256(model).hexdigest()) != SHA256:
        raise CogViewError(
            f"The text tokenizer in {wheel} has SHA-256 {digest[:16]}, not {SHA256[:16]}: download the wheel again."
        )
    atomic_write_bytes(path, model)


def main(arguments: list[str]) -> None:
    """Extract from the first path to the second."""
    if len(arguments) != 2:
        raise UsageError("Give the wheel and the file to write: python -m cogview.text.released WHEEL MODEL")
    extract_released_model(Path(arguments[0]), Path(arguments[1]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CogViewError as error:
        sys.exit(str(error))
