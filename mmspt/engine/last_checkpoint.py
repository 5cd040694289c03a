"""Which checkpoint a work directory can go on from."""
import os.path as osp
import re
import zipfile
from glob import escape, glob


def named_checkpoint(work_dir: str) -> str:
    """Read the path in MMEngine's ``last_checkpoint``; '' if there is none."""
    try:
        with open(osp.join(work_dir, 'last_checkpoint'), encoding='utf-8') as file:
            return file.read().strip()
    except FileNotFoundError:
        return ''


def last_good(work_dir: str) -> str:
    """Half a sentence for error messages: the last checkpoint, or that there is none."""
    named = named_checkpoint(work_dir)
    return f"the last good checkpoint is '{named}' (go on from it with --resume)" if named else 'no checkpoint yet'


def find_latest(work_dir: str) -> str | None:
    """Find the checkpoint to resume from: the one that ``last_checkpoint`` names, in ``work_dir`` before elsewhere.

    Where that is not there or cut off, the newest whole ``epoch_<n>.pth`` or ``iter_<n>.pth`` of the folder is taken.

    Args:
        work_dir (str): Work directory of a run.

    Returns:
        str | None: Its path; None if there is none.
    """
    named = named_checkpoint(work_dir)
    if '://' in named:
        return named
    numbered = [path for path in glob(osp.join(escape(work_dir), '*.pth')) if _number(path)]
    candidates = [osp.join(work_dir, osp.basename(named)), named] if named else []
    candidates += sorted(numbered, key=_number, reverse=True)
    return next((path for path in candidates if osp.isfile(path) and zipfile.is_zipfile(path)), None)


def _number(path: str) -> int:
    match = re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', osp.basename(path))
    return int(match.group(1)) if match else 0
