"""One process's error ends all: the others would wait for it for ever."""
from mmengine import dist


def agree(error: Exception | None, task: str) -> None:
    """Raise this rank's error, or, where another rank failed, say which and stop as well.

    Args:
        error (Exception | None): What went wrong on this rank.
        task (str): What all ranks are doing, for the message.
    """
    texts = dist.all_gather_object(None if error is None else f'{type(error).__name__}: {error}')
    if error is not None:
        raise error
    failed = {f'rank {rank}': text for rank, text in enumerate(texts) if text is not None}
    if failed:
        raise RuntimeError(f'{task} failed on another process: {failed}')
