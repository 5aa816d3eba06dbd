"""Pinned npm packages with the icons and labels of the data sets.

`npm pack` downloads an archive without running anything; or archives come from the user's folder. Members are read in
memory, so that an archive cannot write anywhere.
"""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogview.errors import CogViewError
from cogview.files import sha256_of
from cogview.folders import temporary_folder

CREDITS_FILE = "CREDITS.txt"
"""File with authors and licences, in folders of pictures and of their tokens."""
FETCH_TIMEOUT_SECONDS = 600
MAX_MEMBER_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class Package:
    """Pinned package.

    Args:
        name: on npm.
        version: exact version.
        sha256: of the archive, in hexadecimal.
        licence: SPDX identifier.
        author: to credit.
    """

    name: str
    version: str
    sha256: str
    licence: str
    author: str

    @property
    def file_name(self) -> str:
        """Return the archive's name by `npm pack`."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def credit(self) -> str:
        """Return the line for `CREDITS_FILE`."""
        return f"{self.author}, package {self.name} {self.version}, under {self.licence}"


EMOJIBASE = Package(
    name="emojibase-data",
    version="17.0.0",
    sha256="d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    licence="MIT",
    author="Miles Johnson",
)
NOTO = Package(
    name="@iconify-json/noto",
    version="1.2.9",
    sha256="3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    licence="Apache-2.0",
    author="Google Inc",
)
TWEMOJI = Package(
    name="@iconify-json/twemoji",
    version="1.2.5",
    sha256="19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    licence="CC-BY-4.0",
    author="Twitter, Inc and other contributors",
)
FLUENT = Package(
    name="@iconify-json/fluent-emoji",
    version="1.2.7",
    sha256="8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
    licence="MIT",
    author="Microsoft Corporation",
)
FLUENT_FLAT = Package(
    name="@iconify-json/fluent-emoji-flat",
    version="1.2.6",
    sha256="7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    licence="MIT",
    author="Microsoft Corporation",
)
OPENMOJI = Package(
    name="@iconify-json/openmoji",
    version="1.2.29",
    sha256="03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    licence="CC-BY-SA-4.0",
    author="OpenMoji",
)
FLUENT_3D = Package(
    name="@lobehub/fluent-emoji-3d",
    version="1.1.0",
    sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    licence="MIT",
    author="Microsoft Corporation, packaged by LobeHub",
)


def cache_folder() -> Path:
    """Return the cache folder: `$COGVIEW_CACHE`, or `~/.cache/cogview`."""
    chosen = os.environ.get("COGVIEW_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "cogview"


def find_package(package: Package, packages_folder: Path | None = None) -> Path:
    """Return the path of a package's archive, fetched into the cache if necessary.

    Args:
        package: the package.
        packages_folder: a folder of archives to use instead of the network, or None.

    Raises:
        CogViewError: the archive is missing, differs from the pinned one, or cannot be fetched.
    """
    if packages_folder is not None:
        path = packages_folder / package.file_name
        if not path.is_file():
            raise CogViewError(
                f"{packages_folder} has no {package.file_name}; put it there with"
                f" `npm pack {package.name}@{package.version}`, or leave the folder out to have it fetched"
            )
        return _verify(package, path)
    path = cache_folder() / "packages" / package.file_name
    if not path.is_file():
        _fetch(package, path)
    return _verify(package, path)


def read_json_member(archive: Path, member: str) -> Any:
    """Read a JSON member of a package's archive.

    Args:
        archive: the `.tgz` file.
        member: path inside the package, such as `icons.json`.

    Raises:
        CogViewError: the archive cannot be read or has no such member.
    """
    for _, data in read_members(archive, [member]):
        return json.loads(data)
    raise CogViewError(f"{archive} has no member {member}; delete the archive to have it fetched again")


def read_members(archive: Path, members: Iterable[str] | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield regular files of a package's archive as (path inside the package, bytes).

    Args:
        archive: the `.tgz` file.
        members: paths inside the package, or None for all.

    Raises:
        CogViewError: the archive cannot be read.
    """
    wanted = None if members is None else set(members)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for info in tar:
                path = info.name.partition("/")[2]  # npm puts everything under `package/`
                if not info.isreg() or (wanted is not None and path not in wanted):
                    continue
                if info.size > MAX_MEMBER_BYTES:
                    raise CogViewError(
                        f"{archive}: {path} has {info.size} bytes, more than {MAX_MEMBER_BYTES}"
                    )
                file = tar.extractfile(info)
                assert file is not None  # a regular file has content
                yield path, file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CogViewError(
            f"{archive} is not a readable .tgz archive ({error}); delete it and fetch it again"
        ) from error


def _verify(package: Package, path: Path) -> Path:
    sha256 = sha256_of(path)
    if sha256 != package.sha256:
        raise CogViewError(
            f"{path} is not {package.name}@{package.version}: its sha256 is {sha256[:16]}..., wanted"
            f" {package.sha256[:16]}...; delete it and fetch it again"
        )
    return path


def _fetch(package: Package, path: Path) -> None:
    npm = shutil.which("npm")
    by_hand = f"`npm pack {package.name}@{package.version}` into a folder and name that folder"
    if npm is None:
        raise CogViewError(
            f"npm is needed once to fetch {package.name} and is not installed; install it,"
            f" or on another machine {by_hand}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path) as folder:
        command = [
            npm,
            "pack",
            f"{package.name}@{package.version}",
            "--pack-destination",
            str(folder),
            "--loglevel=error",
        ]
        try:
            result = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=FETCH_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CogViewError(
                f"npm did not fetch {package.name} within {FETCH_TIMEOUT_SECONDS} s; check the network, or {by_hand}"
            ) from error
        fetched = folder / package.file_name
        if result.returncode != 0 or not fetched.is_file():
            reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[0]
            reason = reason.removeprefix("npm error ")
            raise CogViewError(
                f"npm could not fetch {package.name}@{package.version} ({reason}); check the network, or {by_hand}"
            )
        _verify(package, fetched).replace(path)
