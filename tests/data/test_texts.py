"""data/texts.py: which texts belong together, which groups are held out, and unusable tables.

python -m pytest tests/data/test_texts.py
"""

import pytest

from data.common import BadInput
from data.images.formats import Columns
from data.images.read import captions_of
from data.texts import Row, groups_of, images_with_two_captions, read_texts


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return str(path)


def of_groups(n, start=0):
    """Rows of n groups: two pairs each, which share no text, but name their group."""
    rows = []
    for i in range(start, start + n):
        rows += [f"first {i},second {i},g{i},near {i}", f"third {i},fourth {i},g{i},"]
    return rows


HEADER = "first,second,group,hard"


def test_rows_are_joined_by_a_group_s_name_or_by_a_text():
    def groups(*rows):
        """The rows as sets of numbers, one set per group."""
        found = groups_of([Row(*row) for row in rows])
        return {frozenset(i for i, g in enumerate(found) if g == group) for group in found}

    a, b, c = ("a", "b", "", ""), ("c", "d", "", ""), ("e", "f", "", "")
    assert groups(a, b, c) == {frozenset([0]), frozenset([1]), frozenset([2])}
    # A text on either side, and a chain that is closed by the last row.
    assert groups(a, ("x", "a", "", ""), c) == {frozenset([0, 1]), frozenset([2])}
    assert groups(a, b, c, ("b", "d", "", "")) == {frozenset([0, 1, 3]), frozenset([2])}
    # Names join; a group's name is no text; a hard negative joins nothing.
    assert groups(("a", "b", "n", ""), ("c", "d", "n", ""), c) == {
        frozenset([0, 1]),
        frozenset([2]),
    }
    assert groups(a, ("c", "d", "a", ""), ("e", "f", "", "a")) == {
        frozenset([0]),
        frozenset([1]),
        frozenset([2]),
    }


def test_whole_groups_are_held_out_whatever_else_is_there(tmp_path, capsys):
    rows = of_groups(400)
    training, held_out = read_texts(write(tmp_path / "x.csv", [HEADER, *rows]))
    trained_groups = {related.group for related in training}
    held_out_groups = {related.group for related in held_out}
    assert len(trained_groups) + len(held_out_groups) == 400
    assert not trained_groups & held_out_groups
    assert len(training) == 2 * len(trained_groups)
    # Of 400 a tenth, give or take three standard deviations.
    assert 22 <= len(held_out) == len(held_out_groups) <= 58
    for related in training + held_out:
        i = related.texts[0].split()[1]
        assert related.group == {f"{word} {i}" for word in ("first", "second", "third", "fourth")}
    # Of a held-out group comes the first row.
    assert all(related.texts[0].startswith("first") for related in held_out)
    said = capsys.readouterr().err
    assert f"800 rows in 400 groups (at most 2 rows in one), {len(held_out)} groups held" in said

    # Neither their order, nor the rows beside them, nor the names of groups change which.
    other = [row.replace(",g", ",name ") for row in reversed(rows[:200])] + of_groups(50, 1000)
    _, again = read_texts(write(tmp_path / "y.csv", [HEADER, *other]))
    first_hundred = {g for g in held_out_groups if int(min(g).split()[1]) < 100}
    assert first_hundred == {g for g in held_out_groups & {r.group for r in again}}
    assert {g for g in {r.group for r in again} if int(min(g).split()[1]) < 100} == first_hundred

    # The held-out come in an order that is not the file's, and is the same for both files.
    numbers = [int(related.texts[0].split()[1]) for related in held_out]
    assert numbers != sorted(numbers)
    assert [n for n in numbers if n < 100] == [
        int(r.texts[0].split()[1]) for r in again if int(r.texts[0].split()[1]) < 100
    ]


def test_training_sees_no_held_out_text_as_a_hard_negative(tmp_path):
    rows = [f"first {i},second {i},g{i},second {(i + 1) % 300}" for i in range(300)]
    training, held_out = read_texts(write(tmp_path / "x.csv", [HEADER, *rows]))
    held_out_texts = {text for related in held_out for text in related.texts}
    hard = [related.hard for related in training]
    assert not held_out_texts & set(hard)
    for related in training:
        i = int(related.texts[0].split()[1])
        wanted = f"second {(i + 1) % 300}"
        assert related.hard == ("" if wanted in held_out_texts else wanted)
    assert 0 < hard.count("") < 60


def test_the_table_may_be_a_tsv_with_other_columns_in_another_order(tmp_path):
    rows = [f"x\tlonger,  {i} \t short {i}" for i in range(30)]
    training, held_out = read_texts(write(tmp_path / "x.TSV", ["kind\tsecond\tfirst", *rows]))
    pairs = {related.texts for related in training + held_out}
    assert pairs == {(f"short {i}", f"longer, {i}") for i in range(30)}
    assert all(related.group == set(related.texts) for related in training)
    assert {related.hard for related in training + held_out} == {""}


@pytest.mark.parametrize(
    "lines, says",
    [
        (["first,title", "a,b"], r"x.csv: no column second; .* ',': first, title"),
        (["second,b", "a,b"], "x.csv: no column first;"),
        (["first,second"], "x.csv: a header without rows"),
        ([HEADER, "a,b", "c,"], "x.csv line 3: no second text"),
        ([HEADER, "a,b", "c"], "x.csv line 3: no second text"),
        ([HEADER, " ,b"], "x.csv line 2: no first text"),
        ([HEADER, "a b,a  b"], "x.csv line 2: both texts are the same"),
        ([HEADER, "a,b,c,d,e"], "x.csv line 2: more fields than columns"),
        ([HEADER, "a,b", 'c,"d', "e,f"], "x.csv line 3: not readable .*; a field that begins with"),
        ([HEADER, "a,b", "b,c"], r"x.csv: tuning needs two groups .* here are 1, of which \d are"),
        (["image,caption", "nowhere.png,b"], "x.csv: none of its 1 entries can be used"),
        (["a,b", "c,d"], "x.csv: no column filepath"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, lines, says, monkeypatch):
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BadInput, match=says):
        read_texts(write(tmp_path / "x.csv", lines))


def test_tuning_on_images_needs_two_captions_per_image():
    with pytest.raises(BadInput, match="mine: tuning needs images that have two captions or more"):
        images_with_two_captions("mine", [["a"], ["b", "a"], ["c", "c"], ["b", "a"]])
    some = images_with_two_captions("mine", [["d", "c", "d"], ["a"], ["b", "a"], ["b", "a"]])
    assert [related.texts for related in some] == [("b", "a"), ("d", "c")]
    assert [related.group for related in some] == [{"a", "b"}, {"c", "d"}]


def test_a_built_in_world_has_paraphrases_unless_asked_for_others():
    for key, kind in (("", "paraphrase"), ("mixed", "mixed")):
        columns = Columns(csv_caption_key=kind)
        training, held_out = read_texts("shapes-simple", key)
        wanted = captions_of("shapes-simple", "train", columns)
        assert [r.texts for r in training] == sorted({tuple(dict.fromkeys(c)) for c in wanted})
        assert [list(r.texts) for r in held_out] == captions_of("shapes-simple", "test", columns)
