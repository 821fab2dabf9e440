"""What several test files need: no network behind our backs, language models, a small run.

Nothing here imports a reference package, so that `make test-fast` runs without any.
"""

import math
import os
import warnings

import numpy as np
import pytest
import torch

from tests.tiny_llm import write_tiny_llm

# The reference libraries read local files only.
os.environ["HF_HUB_OFFLINE"] = "1"
# Without this, tokenizers warns whenever a test starts a process.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# The models are tiny, and two processes share the tests: more threads would only wait for each
# other. The variable is for the programs that tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def llm():
    """The default SmolLM2, fetched once. Tests that take it are marked real_llm.

    Only a failed fetch skips them. A file that is there and does not load fails.
    """
    import llm_text
    from data.common import BadInput
    from data.files.llm import fetch_default

    try:
        fetch_default()
    except BadInput as error:
        reason = f"NOT TESTED against the real SmolLM2 file: {error}"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    return llm_text.load_llm()


@pytest.fixture(scope="session")
def tiny_llm_folder(tmp_path_factory):
    """A random language model of two blocks: to train on, not to read well. See tiny_llm.py."""
    return write_tiny_llm(tmp_path_factory.mktemp("tiny_llm"))


@pytest.fixture
def small(tiny_llm_folder, tmp_path, monkeypatch):
    """Settings of a train.Config that runs in seconds, with a cache of its own."""
    monkeypatch.setenv("LIFT_CACHE", str(tmp_path / "cache"))
    return {
        "llm": str(tiny_llm_folder),
        "out": str(tmp_path / "run"),
        "device": "cpu",
        "model": "micro/16",
        "image_size": 32,
        "batch_size": 16,
        "train_num_samples": 64,
        "whiten": 8,
        "text_width": 32,
        "text_depth": 2,
        "text_heads": 2,
        "embed_dim": 32,
        "context_length": 200,
        "epochs": 10_000,
        "steps": 6,
        "log_every_n_steps": 2,
        "save_frequency": 2,
    }


def evaluated(folder, data="", columns=None):
    """The result of a run on its own held-out images, or on those of `data`."""
    from data.benchmarks import held_out
    from data.images.formats import Columns
    from eval import Run, evaluate

    trained = Run(folder)
    return evaluate(trained, held_out(trained.config, data, columns or Columns()))


def ridge_by_least_squares(X, T, share=0.001):
    """Ridge regression as plain least squares with more rows: [X; sqrt(lambda) I] W = [T; 0]."""
    X, T = X.double().numpy(), T.double().numpy()
    strength = share * np.linalg.eigvalsh(X.T @ X).mean()
    rows = np.concatenate([X, math.sqrt(strength) * np.eye(X.shape[1])])
    targets = np.concatenate([T, np.zeros((X.shape[1], T.shape[1]))])
    return torch.from_numpy(np.linalg.lstsq(rows, targets)[0])  # (d_in, d_out)


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    """What one test drew of a smaller world is not what the next one is asked."""
    yield
    from data import benchmarks

    benchmarks.new_colours.cache_clear()
    benchmarks.single_things.cache_clear()
