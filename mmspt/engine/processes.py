"""An error of one process ends all processes of a job."""
from mmengine import dist


def raise_in_all_processes(error: Exception | None, task: str) -> None:
    """Raise this process's error, or an error that names the processes that failed.

    Every process must call it: a process that ended alone would leave the others waiting for it.

    Args:
        error (Exception | None): The error of this process, if any.
        task (str): The task of all processes, for the message.
    """
    texts = dist.all_gather_object(None if error is None else f'{type(error).__name__}: {error}')
    if error is not None:
        raise error
    failed = {f'rank {rank}': text for rank, text in enumerate(texts) if text is not None}
    if failed:
        raise RuntimeError(f'{task} failed on another process: {failed}')
