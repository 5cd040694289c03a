"""A user's small job: an image folder with list files, a config of ten lines."""
import pytest

from helpers import make_job


@pytest.fixture
def job(tmp_path):
    """See :func:`helpers.make_job`."""
    return make_job(tmp_path)
