"""Find the runs below folders: those with a finished result, and those that lack something."""
import os
import os.path as osp
import re
from collections.abc import Iterable
from typing import NamedTuple

from .result import FILE_NAME, read_result
from .settings import Run
from .tables import METRIC

SEARCH, TRIALS = 'study.db', 'trials'  # tools/sweep.py's; its trials were validated, never tested
LOGS = re.compile(r'\d{8}_\d{6}')  # MMEngine names the folder of a run's logs by its start


class Unfinished(NamedTuple):
    """A folder that gives no row to the tables."""
    folder: str
    lacks: str
    remedy: str


def find_runs(folders: Iterable[str]) -> tuple[list[Run], list[Unfinished]]:
    """Search folders and all below them.

    A run is a folder with ``result.json``, ``last_checkpoint`` or MMEngine's folders of logs; those that
    tools/init_prompts.py alone made, and the trials of a search, are passed by.

    Args:
        folders (Iterable[str]): Work directories or their parents; one that is reached twice counts once.

    Returns:
        tuple[list[Run], list[Unfinished]]: Finished runs, and everything else that was asked for, each in the order of
        folders.
    """
    runs: dict[str, Run] = {}
    unfinished: dict[str, Unfinished] = {}
    for top in folders:
        found = False
        for folder, subfolders, files in os.walk(top):
            logs = [name for name in subfolders if LOGS.fullmatch(name)]
            subfolders[:] = sorted(set(subfolders) - {*logs, *([TRIALS] if SEARCH in files else [])})
            if not _is_run(files, logs):
                continue
            found = True
            run = look_at(folder, files)
            if isinstance(run, Run):
                runs.setdefault(osp.realpath(folder), run)
            else:
                unfinished.setdefault(osp.realpath(folder), run)
        if not found:
            lacks = 'holds no run' if osp.isdir(top) else 'is no folder'
            unfinished.setdefault(osp.realpath(top), Unfinished(top, lacks, 'name the --work-dir of a run, or a folder '
                                                                            'above it'))
    return list(runs.values()), list(unfinished.values())


def look_at(folder: str, files: Iterable[str]) -> Run | Unfinished:
    """Read the result of one run, or say what it lacks and how to get it.

    Args:
        folder (str): Its work directory.
        files (Iterable[str]): Names of the files there.
    """
    config = _config(folder, files)
    train = f'python tools/train.py {config} --work-dir {folder} --resume'
    test = f'python tools/test.py {config} CHECKPOINT --work-dir {folder}'
    if FILE_NAME not in files:
        last = _last_checkpoint(folder)
        return Unfinished(folder, f'no {FILE_NAME}: not trained to its end, or not tested (last checkpoint: {last})',
                          f"{train}   (default_hooks needs result=dict(type='mmspt.ResultHook'))")
    try:
        result = read_result(osp.join(folder, FILE_NAME))
    except (OSError, ValueError) as error:
        return Unfinished(folder, str(error), test)
    if not result.finished:
        epochs = f'epoch {result.epoch} of {result.max_epochs}, {result.checkpoint}'
        return Unfinished(folder, f'{FILE_NAME} is not of the last epoch ({epochs})', train)
    if not isinstance(result.metrics.get(METRIC), int | float):
        return Unfinished(folder, f"{FILE_NAME} has no '{METRIC}', only {', '.join(result.metrics)}",
                          f"test_evaluator = dict(type='Accuracy') in the config, then {test}")
    return Run(folder, result)


def _is_run(files: Iterable[str], logs: list[str]) -> bool:
    configs = [name for name in files if name.endswith('.py')]
    only_prompts = bool(configs) and all(name.endswith('_init_prompts.py') for name in configs)
    return FILE_NAME in files or 'last_checkpoint' in files or (bool(logs) and not only_prompts)


def _config(folder: str, files: Iterable[str]) -> str:
    """The config that MMEngine wrote there last, other than a test's."""
    paths = [osp.join(folder, name) for name in files
             if name.endswith('.py') and not name.endswith(('_test.py', '_init_prompts.py'))]
    return max(paths, key=osp.getmtime, default='CONFIG')


def _last_checkpoint(folder: str) -> str:
    path = osp.join(folder, 'last_checkpoint')
    if not osp.isfile(path):
        return 'none'
    with open(path, encoding='utf-8') as file:
        return osp.basename(file.read().strip())
