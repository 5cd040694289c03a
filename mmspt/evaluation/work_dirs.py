"""Find the runs below folders: finished ones, unfinished ones, and those without a test."""
import json
import os
import os.path as osp
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mmspt.config import ENDINGS

from .result import RESULT_FILE, read_result
from .settings import Run
from .tables import METRIC

SEARCH, TRIALS = 'search', 'trials'  # of tools/sweep.py and benchmark.py; trials were validated, never tested
LOGS = re.compile(r'\d{8}_\d{6}')  # MMEngine names the folder of a run's logs by its start


class Unfinished(NamedTuple):
    """A folder that gives no row to the tables."""
    folder: str
    lacks: str
    remedy: str


class Found(NamedTuple):
    """Everything below the folders that were asked for, in their order."""
    runs: list[Run]
    unfinished: list[Unfinished]
    untested: list[str]
    """Folders of runs whose config has no test, as in pre-training."""


def find_runs(folders: Iterable[str]) -> Found:
    """Search work directories and all below them; one that is reached twice counts once.

    A run is a folder with ``result.json``, ``last_checkpoint`` or MMEngine's folders of logs; folders that
    tools/init_prompts.py alone wrote, and the trials of a search, are skipped.
    """
    found: dict[str, Run | Unfinished | str] = {}
    for top in folders:
        runs = list(walk_runs(top))
        for folder, files, logs in runs:
            found.setdefault(osp.realpath(folder), read_run(folder, files, logs))
        if not runs:
            lacks = 'holds no run' if osp.isdir(top) else 'is no folder'
            found.setdefault(osp.realpath(top), Unfinished(top, lacks, 'name the --work-dir of a run, or a folder '
                                                                       'above it'))
    items = found.values()
    return Found([item for item in items if isinstance(item, Run)],
                 [item for item in items if isinstance(item, Unfinished)],
                 [item for item in items if isinstance(item, str)])


def walk_runs(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the runs at and below a folder, sorted: folder, names of its files, names of MMEngine's log folders."""
    for folder, subfolders, files in os.walk(top):
        logs = [name for name in subfolders if LOGS.fullmatch(name)]
        subfolders[:] = sorted(set(subfolders) - {*logs, *([TRIALS] if SEARCH in subfolders else [])})
        if is_run(files, logs):
            yield folder, files, logs


def read_run(folder: str, files: Iterable[str], logs: Iterable[str]) -> Run | Unfinished | str:
    """Return the result of one run, what it lacks and how to get it, or the folder if its config has no test."""
    config = find_config(folder, files)
    train = f'python tools/train.py {config} --work-dir {folder} --resume'
    test = f'python tools/test.py {config} CHECKPOINT --work-dir {folder}'
    path = osp.join(folder, RESULT_FILE)
    if RESULT_FILE not in files:
        if _has_no_test(config):
            return folder
        if 'last_checkpoint' not in files and any(name.endswith('_test.py') for name in files) and config == 'CONFIG':
            return Unfinished(folder, f'no {RESULT_FILE}: a test that did not end', test)
        last = 'none'
        if 'last_checkpoint' in files:
            with open(osp.join(folder, 'last_checkpoint'), encoding='utf-8') as file:
                last = osp.basename(file.read().strip())
        return Unfinished(folder, f'no {RESULT_FILE}: not trained to its end, or not tested (last checkpoint: {last})',
                          f"{train}   (default_hooks needs result=dict(type='mmspt.ResultHook'); where its after_train "
                          'is False, tools/test.py on the last checkpoint)')
    try:
        result = read_result(path)
    except (OSError, ValueError) as error:
        return Unfinished(folder, str(error), test)
    if not result.finished:
        lacks = f"{RESULT_FILE} is not of the training's end ({result.progress}, {result.checkpoint})"
        return Unfinished(folder, lacks, train if result.trained_on is not None else test)
    if not isinstance(result.metrics.get(METRIC), int | float):
        return Unfinished(folder, f"{RESULT_FILE} has no '{METRIC}', only {', '.join(result.metrics)}",
                          f"test_evaluator = dict(type='Accuracy') in the config, then {test}")
    scalars = (osp.join(name, 'vis_data', 'scalars.json') for name in sorted(logs))  # which only trainings write
    for name in ('last_checkpoint', *scalars):
        other = osp.join(folder, name)
        if osp.isfile(other) and osp.getmtime(other) > osp.getmtime(path):
            return Run(folder, result, f'{name} is newer than {RESULT_FILE}, so something was trained here after the '
                       'result that is reported (a copy that lost the times of its files looks the same)')
    return Run(folder, result)


def is_run(files: Iterable[str], logs: Iterable[str]) -> bool:
    """Return whether a folder with these files and MMEngine's log folders is the work directory of a run."""
    configs = [name for name in files if name.endswith(ENDINGS) and not name.endswith('.json')]
    only_prompts = bool(configs) and all(name.endswith('_init_prompts.py') for name in configs)
    return RESULT_FILE in files or 'last_checkpoint' in files or (any(logs) and not only_prompts)


def find_config(folder: str, files: Iterable[str]) -> str:
    """Return the path of the config that MMEngine wrote there last, other than a test's; 'CONFIG' if none."""
    paths = [osp.join(folder, name) for name in files
             if name.endswith(ENDINGS) and not name.endswith(('_test.py', '_init_prompts.py'))]
    paths = [path for path in paths if not path.endswith('.json') or _is_config(path)]
    return max(paths, key=osp.getmtime, default='CONFIG')


def _has_no_test(config: str) -> bool:
    """Return whether a config that MMEngine wrote has no test loader; it is read, never executed."""
    if not osp.isfile(config):
        return False
    with open(config, encoding='utf-8') as file:
        text = file.read()
    wanted = r'(^|")test_dataloader"?\s*[=:](?!\s*(None|null)\b)'
    return bool(text.strip()) and re.search(wanted, text, re.MULTILINE) is None


def _is_config(path: str) -> bool:
    """Return whether a JSON file in a work directory is a config, and not a result or predictions."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get('model'), dict)
