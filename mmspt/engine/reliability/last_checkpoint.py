"""The checkpoint of a work directory to resume from."""
import os.path as osp
import re
import zipfile
from glob import escape, glob


def named_checkpoint(work_dir: str) -> str:
    """Return the path in MMEngine's file ``last_checkpoint``; '' without that file."""
    try:
        with open(osp.join(work_dir, 'last_checkpoint'), encoding='utf-8') as file:
            return file.read().strip()
    except FileNotFoundError:
        return ''


def resume_hint(work_dir: str) -> str:
    """Return half a sentence for error messages: which checkpoint to resume from."""
    named = named_checkpoint(work_dir)
    return f"the last good checkpoint is '{named}' (go on from it with --resume)" if named else 'no checkpoint yet'


def find_latest(work_dir: str) -> str | None:
    """Find the checkpoint to resume from.

    It is the one that ``last_checkpoint`` names, in ``work_dir`` before elsewhere, since the folder may have been
    moved. If it is missing or cut off, it is the newest whole ``epoch_<n>.pth`` or ``iter_<n>.pth`` of ``work_dir``.

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
