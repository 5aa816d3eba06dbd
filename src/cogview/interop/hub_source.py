"""Download of other projects' checkpoints from the Hugging Face hub."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cogview.errors import CogViewError, UsageError
from cogview.files import sha256_of
from cogview.interop.checkpoint_folder import choose_file, choose_index, read_index
from cogview.interop.tokenizer_layouts import find_layout
from cogview.models.config import why_not_downloaded

_SOURCE = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w.-][\w./ -]*))?")


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """Files of a repository in the local cache.

    Args:
        path: the file, or the folder of the files.
        repository: `OWNER/NAME`.
        revision: the commit.
    """

    path: Path
    repository: str
    revision: str


def is_hub_source(source: str) -> bool:
    """Return whether a text has the form `OWNER/NAME` or `OWNER/NAME:FILE`."""
    return _SOURCE.fullmatch(source) is not None


def download_source(source: str, announce: Callable[[Sequence[str], int], object]) -> Downloaded:
    """Download the weights of a repository, and the configuration beside them, into the local cache.

    Of a larger model in several files only those with the image tokenizer are fetched.

    Args:
        source: `OWNER/NAME`, or `OWNER/NAME:FILE` for a file or folder in it.
        announce: called with the names of the files of weights and their bytes in all, before they are downloaded.

    Raises:
        UsageError: the source has another form.
        CogViewError: the download failed, there is no such file, or a file's checksum is not the hub's.
    """
    if (match := _SOURCE.fullmatch(source)) is None:
        raise UsageError(
            f"--download wants OWNER/NAME or OWNER/NAME:FILE on the Hugging Face hub, got {source[:200]}"
        )
    repository, inner = match[1], (match[2] or "").strip("/")
    try:
        from huggingface_hub import HfApi

        info = HfApi().model_info(repository, files_metadata=True)
    except Exception as error:  # hub and HTTP library have no common base class of errors
        raise _failed(repository, error) from error
    siblings = {each.rfilename: each for each in info.siblings or ()}
    is_file = inner in siblings
    folder = PurePosixPath(inner).parent if is_file else PurePosixPath(inner)
    beside = {PurePosixPath(name).name: name for name in siblings if PurePosixPath(name).parent == folder}
    where = f"{repository}:{inner}" if inner else repository

    def fetch(name: str) -> Path:
        return _fetch(repository, str(info.sha), siblings[beside[name]])

    if is_file:
        weights = [PurePosixPath(inner).name]
    elif (index := choose_index(beside)) is not None:
        places = read_index(fetch(index))
        found = find_layout(places.keys())
        weights = sorted({file for name, file in places.items() if found and name.startswith(found[1])})
        if not weights or not set(weights) <= beside.keys():
            raise CogViewError(f"{where}: {index} names no image tokenizer that is known and whole")
    else:
        weights = [choose_file(beside, where)]
    announce(weights, sum(siblings[beside[name]].size or 0 for name in weights))
    paths = [fetch(name) for name in weights]
    if "config.json" in beside:
        fetch("config.json")
    return Downloaded(
        path=paths[0] if is_file else paths[0].parent, repository=repository, revision=str(info.sha)
    )


def _fetch(repository: str, revision: str, sibling: Any) -> Path:
    """Download a file, and compare its checksum with the hub's, if it has one."""
    try:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(repository, sibling.rfilename, revision=revision))
    except Exception as error:
        raise _failed(repository, error) from error
    wanted = sibling.lfs.sha256 if sibling.lfs else None
    if wanted is not None and sha256_of(path) != wanted:
        raise CogViewError(
            f"{path}: its SHA-256 is not that of the hub, {wanted}; delete it and download it again"
        )
    return path


def _failed(repository: str, error: Exception) -> CogViewError:
    return CogViewError(
        f"{repository} was not downloaded, {why_not_downloaded(error)}: check the id and the network"
    )
