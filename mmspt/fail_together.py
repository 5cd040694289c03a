"""An error of one process ends all processes of a job."""
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine import dist


@contextmanager
def fail_together(task: str) -> Iterator[None]:
    """Raise this process's error from inside, or one that names the processes that failed.

    Every process must enter it: a process that ended alone would leave the others waiting for it.

    Args:
        task (str): The task of all processes, for the message.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    texts = dist.all_gather_object(None if error is None else f'{type(error).__name__}: {error}')
    if error is not None:
        raise error
    failed = {f'rank {rank}': text for rank, text in enumerate(texts) if text is not None}
    if failed:
        raise RuntimeError(f'{task} failed on another process: {failed}')
