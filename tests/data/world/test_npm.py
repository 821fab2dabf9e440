"""data/world/npm.py: packages from a folder, from the cache and from npm, hashes, files.

python -m pytest tests/data/world/test_npm.py
"""

import base64
import hashlib
import json
import tarfile

import pytest

from data.common import BadInput
from data.world import emoji, icons, npm
from tests.data.world.tiny_packages import add_member, pack

ALL = [emoji.NAMES, *emoji.STYLES.values(), icons.WORDNET, *icons.HANDS.values()]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "packages").mkdir()
    return tmp_path / "packages"


def pinned(path, name="@some/icons", version="1.0.7"):
    """The package that a file is."""
    digest = bytes.fromhex(hashlib.sha512(path.read_bytes()).hexdigest())
    return npm.Package(name, version, "sha512-" + base64.b64encode(digest).decode())


def refused(function, *words):
    with pytest.raises(BadInput) as error:
        function(*words)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_pin_is_a_version_and_a_hash():
    for package in ALL:
        algorithm, _, digest = package.integrity.partition("-")
        assert algorithm == "sha512" and len(base64.b64decode(digest, validate=True)) == 64
        assert [part.isdigit() for part in package.version.split(".")] == [True] * 3
    assert len({package.integrity for package in ALL}) == len(ALL) == 10


def test_the_hash_is_sha512(tmp_path):
    """The first example of the standard (FIPS 180): the three letters abc."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    digest = (
        "3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
    )
    npm.check_integrity(npm.Package("abc", "1.0.7", f"sha512-{digest}"), path)
    message = refused(npm.check_integrity, npm.Package("abc", "1.0.7", digest), path)
    assert "its sha512 is not that of abc 1.0.7" in message


def test_a_package_of_the_folder_is_checked(folder):
    path = pack(folder, "@some/icons", {"a.json": [1]})
    package = pinned(path)
    assert npm.find_package(package, folder) == npm.find_package(package, str(folder)) == path
    path.write_bytes(path.read_bytes() + b"?")
    message = refused(npm.find_package, package, folder)
    assert message.startswith(f"{path}: its sha512 is not that of @some/icons 1.0.7; ")
    assert "remove it and fetch it again" in message


def test_another_version_of_the_folder_has_no_known_hash(folder):
    path = pack(folder, "@some/icons", {}, version="1.0.8")
    package = npm.Package("@some/icons", "1.0.7", "sha512-?")
    assert npm.find_package(package, folder) == path
    # A package whose name only begins alike is another one.
    pack(folder, "@some/icons-more", {})
    assert npm.find_package(package, folder) == path


def test_packages_that_are_not_there_or_twice(folder):
    package = npm.Package("@some/icons", "1.0.9", "sha512-?")
    message = refused(npm.find_package, package, folder)
    assert f"{folder}: no files some-icons-VERSION.tgz" in message
    assert "npm pack @some/icons@1.0.9" in message
    for version in ("1.0.7", "1.0.8"):
        pack(folder, "@some/icons", {}, version)
    assert "2 files some-icons-VERSION.tgz" in refused(npm.find_package, package, folder)


def test_npm_fetches_once_and_the_cache_is_checked(folder, tmp_path, npm_script):
    package = pinned(pack(folder, "@some/icons", {"a.json": 1}))
    npm_script(f'echo "$1 $2" >> {tmp_path}/asked\ncp {folder}/* .\n')
    path = npm.find_package(package, "")
    assert path == tmp_path / "cache/npm/some-icons-1.0.7.tgz"
    assert npm.find_package(package, "") == path
    assert (tmp_path / "asked").read_text().splitlines() == ["pack @some/icons@1.0.7"]
    path.write_bytes(b"?")
    assert f"{path}: its sha512 is not that of" in refused(npm.find_package, package, "")


def test_what_npm_fetches_is_checked(folder, npm_script):
    path = pack(folder, "@some/icons", {"a.json": 1})
    package = pinned(path)
    pack(folder, "@some/icons", {"a.json": 2})
    npm_script(f"cp {folder}/* .\n")
    assert "its sha512 is not that of @some/icons 1.0.7" in refused(npm.find_package, package, "")


def test_npm_that_fails_or_is_missing(tmp_path, npm_script):
    package = npm.Package("@some/icons", "1.0.7", "sha512-?")
    assert "npm could not fetch @some/icons@1.0.7" in refused(npm.find_package, package, "")
    npm_script(
        "echo half > some-icons-1.0.7.tgz\n"
        'echo "npm error code ENOTFOUND" >&2\n'
        'echo "npm error network" >&2\n'
        "exit 1\n"
    )
    message = refused(npm.find_package, package, "")
    assert "@some/icons@1.0.7 (code ENOTFOUND network)" in message
    assert "--packages" in message and "Node.js" in message
    # Half of a file would be taken for the whole one the next time.
    assert not list((tmp_path / "cache" / "npm").iterdir())


def test_files_by_name_and_by_expression(folder):
    raw = [("package/b/1.svg", b"one"), ("package/b/2.svg", b"two"), ("package/b/2.svgz", b"no")]
    path = pack(folder, "icons", {"a.json": {"x": 1}, "c.json": [2]}, raw=raw)
    assert npm.read_package(path, "a.json") == {"a.json": b'{"x": 1}'}
    files = npm.read_package(path, "a.json", also=r"b/[^/]+\.svg")
    assert files == {"a.json": b'{"x": 1}', "b/1.svg": b"one", "b/2.svg": b"two"}
    assert npm.read_json(path, "c.json", "a.json") == [[2], {"x": 1}]
    message = refused(npm.read_package, path, "a.json", "d.json")
    assert message.startswith(f"{path}: no d.json in it")


def test_packages_that_are_something_else(folder):
    path = pack(folder, "icons", {"a.json": list(range(1000))})
    whole = path.read_bytes()
    assert len(whole) > 700
    for content in (
        b"<html>not found</html>",
        b"",
        whole[: len(whole) // 2],
        whole[:300] + b"?" * 100 + whole[400:],
    ):
        path.write_bytes(content)
        message = refused(npm.read_json, path, "a.json")
        assert message.startswith(f"{path}: cannot be read as an npm package")
    pack(folder, "icons", {}, raw=[("package/a.json", b'{"x": ')])
    assert "cannot be read as an npm package" in refused(npm.read_json, path, "a.json")


def test_names_in_a_package_do_no_harm(folder, tmp_path):
    """Members that point outside are not written anywhere, and a link is not followed."""
    (tmp_path / "a.json").write_text(json.dumps("private"))
    evil = [("package/../../evil.json", b"{}"), ("/evil.json", b"{}")]
    path = pack(folder, "icons", {"b.json": 1}, raw=evil)
    assert npm.read_json(path, "b.json") == [1]
    assert not list(tmp_path.rglob("evil.json"))
    with tarfile.open(path, "w:gz") as tar:
        add_member(tar, "package/b.json", b"1")
        link = tarfile.TarInfo("package/a.json")
        link.type = tarfile.SYMTYPE
        link.linkname = str(tmp_path / "a.json")
        tar.addfile(link)
    assert "no a.json in it" in refused(npm.read_package, path, "a.json", "b.json")
