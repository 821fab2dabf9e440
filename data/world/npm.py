"""npm packages: fetched once, checked against a known hash, and read as streams.

    path = find_package(Package("lucide-static", "1.62.0", "sha512-WBZA..."), folder="")
    files = read_package(path, "LICENSE", "tags.json", also=r"icons/[^/]+\\.svg")

A package is one .tgz file. Nothing of it is unpacked, and nothing in it is run. The sets of icons
(emoji.py, icons.py) come from such packages.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from data.common import BadInput, cache_dir


class Package(NamedTuple):
    """A package, the version that was tested, and the hash of that version's .tgz file."""

    name: str
    version: str
    integrity: str  # as `npm view NAME@VERSION dist.integrity` prints it: "sha512-...", base64

    @property
    def stem(self) -> str:
        """What the name of its file begins with: "@mdi/svg" -> "mdi-svg"."""
        return self.name.removeprefix("@").replace("/", "-")

    @property
    def file(self) -> str:
        return f"{self.stem}-{self.version}.tgz"


def find_package(package: Package, folder: str | Path) -> Path:
    """The .tgz file of a package: from the user's folder, in any version, or else from the cache.

    npm fetches it into the cache on first use. BadInput where it is not there, cannot be fetched,
    or has another hash. Only the version that was tested has a known hash.
    """
    if folder:
        files = list(Path(folder).glob(f"{package.stem}-[0-9]*.tgz"))
        if len(files) != 1:
            raise BadInput(
                f"{folder}: {len(files) or 'no'} files {package.stem}-VERSION.tgz where one is "
                f"needed; to fetch it: npm pack {package.name}@{package.version}"
            )
        path = files[0]
    else:
        path = cache_dir() / "npm" / package.file
        if not path.is_file():
            fetch_package(package, path)
    if path.name == package.file:
        check_integrity(package, path)
    return path


def fetch_package(package: Package, path: Path) -> None:
    """Let npm fetch a package. It is moved to `path` when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = f"{package.name}@{package.version}"
    print(f"fetching {package.name} {package.version} into {path.parent}", file=sys.stderr)
    command = ["npm", "pack", wanted, "--loglevel=error", "--fetch-retries=1"]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            output = getattr(error, "stderr", "") or str(error)
            reason = " ".join(output.replace("npm error", "").split())[:160]
            raise BadInput(
                f"npm could not fetch {wanted} ({reason}); install Node.js and connect to "
                "the network once, or name a folder that holds the packages with --packages"
            ) from error
        os.replace(Path(folder) / path.name, path)


def check_integrity(package: Package, path: Path) -> None:
    """BadInput where the file's sha512 is not the known one."""
    digest = hashlib.sha512(path.read_bytes()).digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != package.integrity:
        raise BadInput(
            f"{path}: its sha512 is not that of {package.name} {package.version}; it is damaged "
            "or another package: remove it and fetch it again"
        )


def read_package(path: Path, *files: str, also: str = "") -> dict[str, bytes]:
    """{file: content} of some files of a package: those that are named, and others.

    files  names of files that must be there
    also   a regular expression for the names of more files, as many as there are
    """
    contents = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                # npm packs one folder; its name does not matter.
                file = member.name.partition("/")[2]
                if member.isfile() and (file in files or re.fullmatch(also, file)):
                    contents[file] = tar.extractfile(member).read()
    # tarfile and zlib raise half a dozen types of errors for a damaged file.
    except Exception as error:
        raise unreadable(path, error) from error
    for file in files:
        if file not in contents:
            raise BadInput(
                f"{path}: no {file} in it; this is another package, or damaged: remove it and "
                "fetch it again"
            )
    return contents


def read_json(path: Path, *files: str) -> list:
    """The parsed JSON of some files of a package, in the order of their names here."""
    contents = read_package(path, *files)
    try:
        return [json.loads(contents[file]) for file in files]
    except ValueError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput(
        f"{path}: cannot be read as an npm package ({error}); remove it and fetch it again"
    )
