"""data/world/icon_shards.py: sizes of icons, shares, all files or none. Shards: in test_emoji.py.

python -m pytest tests/data/world/test_icon_shards.py
"""

import io

import pytest
from PIL import Image

from data.world import icon_shards

RED = '<rect width="12" height="24" stroke-width="2" fill="red"/>'


@pytest.mark.parametrize(
    "head",
    [
        '<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24">',
        "<!-- a licence -->\n<svg\n  height='7px'\n  xmlns=\"http://www.w3.org/2000/svg\"\n"
        '  viewBox="0 0 24 24"\n  width = "100%"\n  stroke-width="2"\n>',
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">',
    ],
)
@pytest.mark.reference
def test_an_icon_is_drawn_in_the_size_that_is_asked_for(head):
    pytest.importorskip("resvg_py")
    png = icon_shards.render(f"{head}{RED}</svg>", 16)
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (16, 16))
    assert image.getpixel((3, 8)) == (255, 0, 0) and image.getpixel((12, 8)) == (255, 255, 255)


def test_only_the_outermost_size_is_replaced():
    svg = '<svg stroke-width="2" width="24" height="24"><svg width="3" height="4"/></svg>'
    assert icon_shards.resized(svg, 9) == (
        '<svg width="9" height="9" stroke-width="2"  ><svg width="3" height="4"/></svg>'
    )


def test_shares_are_spread_evenly():
    shares = sorted(icon_shards.share_of(f"group {i}", 0) for i in range(2000))
    assert all(abs(share - i / 2000) < 0.04 for i, share in enumerate(shares))
    assert icon_shards.share_of("bell", 0) != icon_shards.share_of("bell", 1)


def test_all_files_or_none(tmp_path):
    out = tmp_path / "deep" / "out"
    with (
        pytest.raises(ZeroDivisionError),
        icon_shards.all_or_none(out, ["a.txt", "b.txt"]) as parts,
    ):
        parts["a.txt"].write_text("a")
        1 / 0  # noqa: B018
    assert not list(out.iterdir())
    with icon_shards.all_or_none(out, ["a.txt", "b.txt"]) as parts:
        for file, part in parts.items():
            part.write_text(file)
        assert not (out / "a.txt").exists()
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "a.txt": "a.txt",
        "b.txt": "b.txt",
    }
