"""One JSON a cell of the study, with all that the tables and pictures of docs/results.md are made of."""
import hashlib
import json
import os
import os.path as osp
import re
from collections.abc import Iterable, Mapping
from functools import cache
from glob import escape, glob
from statistics import fmean
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader

from measure import machine
from mmspt.engine.reliability.last_checkpoint import find_latest
from mmspt.evaluation import METRIC, read_records, read_scalars
from mmspt.files import write_text
from mmspt.packs.pack import Pack
from mmspt.search.processes import worker_environments
from mmspt.visualization.drift import measure_drift
from mmspt.visualization.run_folder import PROMPTS
from study_plan import PAPER, Budget, Cell

RESULTS = osp.join(osp.dirname(osp.abspath(__file__)), 'results', 'study')
NMI = 'nmi/mean'
HITS = 'hits.txt'
"""In the folder of a final run: 1 for each test image that it gets right, 0 for each other, in the data set's order."""
FILLED = re.compile(r'Prompts from \w+: .*?, (\d+\.\d) s, peak memory')


def identity(cell: Cell, budget: Budget) -> dict[str, Any]:
    """What a record is of: a cell with another is run again."""
    return dict(cell=cell._asdict(), budget=budget._asdict(), command=cell.command(budget),
                checkpoint=digest(cell.checkpoint))


@cache
def digest(path: str) -> str | None:
    """SHA-256 of a file; None if it is not there."""
    if not osp.isfile(path):
        return None
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()


def path_of(cell: Cell, folder: str = RESULTS) -> str:
    """Where its record lies."""
    return osp.join(folder, f'{cell.name}.json')


def pack_of(cell: Cell, folder: str = RESULTS) -> str:
    """Where a cell's pack lies, if it is its backbone's and task's best."""
    return osp.join(folder, 'packs', f'{cell.name}.safetensors')


def packs_of(cell: Cell, folder: str = RESULTS) -> list[str]:
    """The packs of a cell's backbone and task."""
    return glob(osp.join(escape(folder), 'packs', f'{cell.backbone}_{cell.task}_*.safetensors'))


def is_pack_of(path: str, record: Mapping[str, Any]) -> bool:
    """Whether a pack is there and was tested as the record's first seed was."""
    return osp.isfile(path) and Pack.load(path).metrics == {METRIC: record['test']['by_seed']['0']}


def final_runs(work_dir: str, budget: Budget) -> dict[int, str]:
    """Seed -> work directory of the runs that were tested, of a search that is done."""
    with open(osp.join(work_dir, 'results.json'), encoding='utf-8') as file:
        finals = osp.join(work_dir, json.load(file)['test']['work_dir'])
    return {seed: osp.join(finals, f'seed_{seed}') for seed in range(budget.seeds)}


def best_cells(records: Mapping[Cell, Mapping[str, Any]]) -> list[Cell]:
    """Of each backbone and task the cell that was best on validation, of methods (not controls) whose networks are
    frozen; the first of equals."""
    best: dict[tuple[str, str], Cell] = {}
    for cell, record in records.items():
        place = cell.backbone, cell.task
        if cell.method in PAPER and cell.method != 'Full' and (place not in best or record['best']['validation'] >
                                      records[best[place]]['best']['validation']):
            best[place] = cell
    return list(best.values())


def read_all(planned: Iterable[Cell], budget: Budget, folder: str = RESULTS) -> dict[Cell, dict[str, Any]]:
    """The records that are there, in the order of the plan."""
    return {cell: record for cell in planned if (record := read(cell, budget, folder)) is not None}


def read(cell: Cell, budget: Budget, folder: str = RESULTS) -> dict[str, Any] | None:
    """The record of a cell; None if it has none, or one of another budget.

    Raises:
        ValueError: The file is no JSON.
    """
    path = path_of(cell, folder)
    if not osp.isfile(path):
        return None
    with open(path, encoding='utf-8') as file:
        try:
            record = json.load(file)
        except ValueError as error:
            raise ValueError(f"a record must be JSON, but '{path}' is not ({error}): delete it") from error
    expected = json.loads(json.dumps(identity(cell, budget)))
    return record if {key: record.get(key) for key in expected} == expected else None


def gather(cell: Cell, budget: Budget, work_dir: str, curves: dict[int, str], seconds: float, workers: int) -> dict[
        str, Any]:
    """Make the record of a cell that is done.

    Args:
        cell (Cell): Which.
        budget (Budget): What was spent.
        work_dir (str): Of its search.
        curves (dict[int, str]): Seed -> work directory of the best setting's runs on train that were validated.
        seconds (float): That all of it took.
        workers (int): Runs side by side.
    """
    with open(osp.join(work_dir, 'results.json'), encoding='utf-8') as file:
        results = json.load(file)
    runs = final_runs(work_dir, budget)
    trials = [{key: value for key, value in trial.items() if key != 'work_dir'} for trial in results['trials']]
    trained, total = count_parameters(glob(osp.join(escape(osp.dirname(runs[0])), '*.py'))[0])
    here = machine(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
    threads = worker_environments(workers)[0].get('OMP_NUM_THREADS', here['threads'])
    return identity(cell, budget) | dict(
        machine=here | dict(threads=int(threads)), seconds=round(seconds), workers=workers,
        parameters=dict(trained=trained, total=total),
        best=results['best'], trials=trials,
        test={key: results['test'][key] for key in ('by_seed', 'mean', 'std')} | dict(
            hits={seed: read_hits(folder, results['test']['by_seed'][str(seed)]) for seed, folder in runs.items()}),
        curves={seed: read_scalars(folder, METRIC) for seed, folder in curves.items()},
        resumed=[seed for seed, folder in runs.items() if was_resumed(folder)],
        nmi={seed: values for seed, folder in runs.items() if (values := read_scalars(folder, NMI))},
        prototypes={seed: times for seed, folder in runs.items() if (times := read_times(folder)) is not None},
        prompts={seed: moved for seed, folder in runs.items() if (moved := read_prompts(folder)) is not None})


def count_parameters(config: str) -> tuple[int, int]:
    """Those that a run trains, and all, of a config written out in full."""
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = MODELS.build(cfg.model)
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(count for count, trained in counts if trained), sum(count for count, _ in counts)


def read_hits(work_dir: str, accuracy: float) -> str:
    """Which test images a final run gets right, eight a byte, the bytes as hexadecimal digits.

    Raises:
        ValueError: They are more than half a point away from the accuracy that the run was tested with, in percent.
    """
    with open(osp.join(work_dir, HITS), encoding='utf-8') as file:
        hits = [char == '1' for char in file.read()]
    if abs(100 * fmean(hits) - accuracy) > 0.5:
        raise ValueError(f"a final model must be tested alike twice, but that of '{work_dir}' gave {accuracy:.2f} and "
                         f'{100 * fmean(hits):.2f} %: delete the folder, and give the same command again')
    return np.packbits(hits).tobytes().hex()


def read_log(work_dir: str) -> str:
    """What a run has printed, of all its processes one after the other."""
    with open(osp.join(work_dir, 'train.txt'), encoding='utf-8', errors='replace') as file:
        return file.read()


def was_resumed(work_dir: str) -> bool:
    """Whether a run was stopped and went on from a checkpoint: after that its random augmentation differs from that
    of a run without the stop."""
    return 'resumed epoch: ' in read_log(work_dir)


def read_times(work_dir: str) -> dict[str, float] | None:
    """Seconds that a run's initial prompts took and its steps took; None without prompts."""
    found = FILLED.search(read_log(work_dir))
    if found is None:
        return None
    records = [record for record in read_records(work_dir) if {'time', 'iter', 'loss'} <= record.keys()]
    steps = max(int(record['iter']) for record in records)
    a_step = sum(float(record['time']) for record in records) / len(records)
    return dict(initialization=float(found[1]), training=round(a_step * steps, 1))


def read_prompts(work_dir: str) -> dict[str, float] | None:
    """Length of a run's prompts before and after and the cosine between, means over all; and the mean cosine of two
    prompts of one block, before and after; None without prompts."""
    path = osp.join(work_dir, PROMPTS)
    if not osp.isfile(path):
        return None
    before = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')['prompts']
    after = CheckpointLoader.load_checkpoint(find_latest(work_dir), map_location='cpu', logger='silent')['state_dict'][
        'backbone.prompts']
    drift = measure_drift(before, after)
    return dict(before=float(drift.before.mean()), after=float(drift.after.mean()), cosine=float(drift.cosine.mean()),
                pairs_before=mean_cosine(before), pairs_after=mean_cosine(after))


def mean_cosine(prompts: torch.Tensor) -> float:
    """Mean cosine of two different prompts of one block, over all pairs and blocks, in [-1, 1]; 1 where all are alike.

    Args:
        prompts (torch.Tensor): (L, N_p, D), N_p at least 2.
    """
    directions = torch.nn.functional.normalize(prompts.float(), dim=-1)
    number = prompts.shape[1]
    pairs = directions.sum(1).square().sum(-1) - number  # of each prompt with all others
    return float(pairs.mean()) / (number * (number - 1))


def write(cell: Cell, record: dict[str, Any], folder: str = RESULTS) -> None:
    """Write it beside and rename."""
    os.makedirs(folder, exist_ok=True)
    write_text(path_of(cell, folder), json.dumps(record, indent=1, allow_nan=False) + '\n')
