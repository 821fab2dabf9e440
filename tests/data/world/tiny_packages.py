"""npm packages and shards as the tests of emoji, icons and npm make and read them."""

import io
import json
import tarfile
import zlib

from PIL import Image


def pack(folder, name, files, version="1.0.7", raw=()):
    """A .tgz as npm makes it. files: {name: JSON}; raw: [(member's name, bytes)] besides."""
    files = {"package.json": {"name": name, "version": version, "license": "MIT"}, **files}
    path = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    members = [(f"package/{file}", json.dumps(value).encode()) for file, value in files.items()]
    with tarfile.open(path, "w:gz") as tar:
        for file, content in [*members, *raw]:
            add_member(tar, file, content)
    return path


def add_member(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def colour(style, code):
    """The colour of a tiny icon. It stands for its style and its concept."""
    return tuple(zlib.crc32(f"{style}/{code}".encode()).to_bytes(4, "big")[:3])


def read(path):
    """A shard -> {key: (image, txt, json)}."""
    samples = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            samples.setdefault(key, {})[suffix] = tar.extractfile(member).read()
    return {
        key: (Image.open(io.BytesIO(s["png"])), s["txt"].decode(), json.loads(s["json"]))
        for key, s in samples.items()
    }
