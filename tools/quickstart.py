#!/usr/bin/env python
"""Tune one small frozen backbone on the digits three ways, each by the command a user would type, and compare."""
import argparse
import json
import os.path as osp
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from mmengine.config import Config
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from mmspt.engine.build import build_model
from mmspt.evaluation import METRIC, RESULT_FILE, read_result, read_scalars
from mmspt.files import write_text
from mmspt.visualization import RunFolder, draw_curves, save_picture

TOOLS = osp.dirname(osp.abspath(__file__))
CONFIGS = osp.join(osp.dirname(TOOLS), 'configs')
RUNS = {
    'linear probe': 'linear/vit-xs_mae_digits.py',
    'VPT (uniform prompts)': 'vpt/vit-xs_mae_digits.py',
    'SPT (prototypes)': 'spt/vit-xs_mae_digits.py',
}


def run_tool(tool: str, *args: str, log: str, watch: str | None = None,
             on_epoch: Callable[[int], object] = lambda epoch: None) -> float:
    """Run tools/``tool`` with its output in ``log``; return its seconds.

    Args:
        tool (str): File name in tools/.
        *args (str): Its command line.
        log (str): File for its output.
        watch (str | None): Work directory whose validated epochs go to ``on_epoch``.
        on_epoch (Callable[[int], object]): Called about twice a second.

    Raises:
        SystemExit: The tool failed; the message ends with the last lines of its output.
    """
    start = time.time()
    with open(log, 'w', encoding='utf-8') as output:
        process = subprocess.Popen([sys.executable, osp.join(TOOLS, tool), *args], stdout=output, stderr=output)
        while process.poll() is None:
            if watch is not None:
                on_epoch(max(read_scalars(watch, METRIC), default=0))
            time.sleep(0.4)
    if process.returncode:
        tail = '\n'.join(_read(log).splitlines()[-15:])
        raise SystemExit(f'{tool} {" ".join(args)} failed (exit code {process.returncode}), see {log}:\n{tail}')
    return time.time() - start


def run(config: str, work_dir: str, on_epoch: Callable[[int], object]) -> dict:
    """Train one config, which ends with its test; a finished run is not done again, a killed one is resumed."""
    path, text = osp.join(work_dir, 'quickstart.json'), Config.fromfile(config).pretty_text
    config_used = osp.join(work_dir, 'quickstart_config.py')
    if osp.isfile(config_used) and _read(config_used) != text:
        shutil.rmtree(work_dir)  # runs of another config, made here
    if osp.isfile(path):
        return json.loads(_read(path))
    write_text(config_used, text)
    seconds = run_tool('train.py', config, '--work-dir', work_dir, '--resume', log=osp.join(work_dir, 'train.txt'),
                       watch=work_dir, on_epoch=on_epoch)
    test = read_result(osp.join(work_dir, RESULT_FILE)).metrics[METRIC]
    write_text(path, json.dumps(dict(val=read_scalars(work_dir, METRIC), test=test, seconds=seconds,
                                 trained=count_trained(config))))
    return json.loads(_read(path))


def _read(path: str) -> str:
    with open(path, encoding='utf-8') as file:
        return file.read()


def count_trained(config: str) -> int:
    """Count the parameters that a config trains."""
    return sum(p.numel() for p in build_model(Config.fromfile(config)).parameters() if p.requires_grad)


def show(results: dict[str, dict], console: Console) -> None:
    """Print validation accuracy by epoch, then what each method costs and scores on the test split."""
    val = {name: {int(epoch): value for epoch, value in result['val'].items()} for name, result in results.items()}
    epochs = sorted(set().union(*val.values()))
    table = Table(title='Handwritten digits, 20 labelled images a class, frozen MAE ViT: accuracy (%)')
    table.add_column('validation, epoch', justify='right')
    for name in results:
        table.add_column(name, justify='right')
    shown = [epoch for epoch in epochs if epoch in (1, 2, 3) or epoch % 5 == 0 or epoch == epochs[-1]]
    for epoch in shown:
        table.add_row(str(epoch), *(f'{val[name][epoch]:.1f}' for name in results), end_section=epoch == shown[-1])
    table.add_row('test', *(f'{result["test"]:.1f}' for result in results.values()), style='bold')
    table.add_row('trainable parameters', *(f'{result["trained"]:,}' for result in results.values()))
    table.add_row('train.py, seconds', *(f'{result["seconds"]:.0f}' for result in results.values()))
    console.print(table)


def show_epoch(progress: Progress, task: TaskID, epoch: int) -> None:
    progress.update(task, completed=epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description='VPT, SPT and a linear probe on the same backbone, on real data')
    parser.add_argument('--work-dir', default=osp.join('work_dirs', 'quickstart'), help='where the runs go')
    args = parser.parse_args()
    console = Console(width=100)
    epochs = Config.fromfile(osp.join(CONFIGS, next(iter(RUNS.values())))).train_cfg.max_epochs
    results = {}
    columns = (*Progress.get_default_columns()[:2], TextColumn('epoch {task.completed} of {task.total}'),
               TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        tasks = {name: progress.add_task(name, total=epochs, start=False) for name in RUNS}
        for name, config in RUNS.items():
            progress.start_task(tasks[name])
            results[name] = run(osp.join(CONFIGS, config), osp.join(args.work_dir, config.split('/')[0]),
                                partial(show_epoch, progress, tasks[name]))
            show_epoch(progress, tasks[name], epochs)
    show(results, console)
    runs = [RunFolder(osp.join(args.work_dir, config.split('/')[0])) for config in RUNS.values()]
    picture, *_ = save_picture(draw_curves(runs), args.work_dir)
    console.print(f'curves: {picture}\nlogs, configs and checkpoints: {args.work_dir}/{{linear,vpt,spt}}')


if __name__ == '__main__':
    main()
