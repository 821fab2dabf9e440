"""The reference models, for tests that are marked `reference`."""

import pytest


@pytest.fixture(scope="session")
def models():
    """reference_models.py. Tests that take it are skipped where one of its packages is missing."""
    from tests.data.files import reference_models

    return reference_models
