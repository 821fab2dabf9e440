"""What several test files need: the project on the import path, no network behind our backs, the default LLM."""

import os
import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["HF_HUB_OFFLINE"] = "1"  # the reference libraries read local files only
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # or it warns whenever a test starts a process


@pytest.fixture(scope="session")
def llm():
    """The default SmolLM2, fetched once. Only a failed fetch skips; a file that is there and does not load fails."""
    import llm_text

    try:
        llm_text.fetch_default()
    except llm_text.BadInput as error:
        reason = f"NOT TESTED against the real SmolLM2 file: {error}"
        warnings.warn(reason)
        pytest.skip(reason)
    return llm_text.load_llm()
