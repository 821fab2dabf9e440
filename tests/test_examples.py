"""Examples in docstrings give what they say, and defaults that stand in two places are equal.

python -m pytest tests/test_examples.py
"""

import doctest
import importlib
from dataclasses import fields
from pathlib import Path

import pytest

import lift
import train
from llm_text import TextSource

ROOT = Path(__file__).parent.parent
FILES = [*ROOT.glob("*.py"), *ROOT.glob("data/**/*.py")]
WITH_EXAMPLES = [file for file in FILES if ">>>" in file.read_text()]


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: file.stem)
def test_examples_in_docstrings(file):
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("settings", [lift.Sizes, TextSource])
def test_defaults_are_those_of_the_command_line(settings):
    default_of = {field.name: field.default for field in fields(train.Config)}
    for field in fields(settings):
        assert field.default == default_of[field.name], field.name
