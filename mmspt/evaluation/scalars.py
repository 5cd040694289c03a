"""What a finished or running training logged: the scalars that MMEngine's LocalVisBackend writes."""
import json
import os.path as osp
from collections.abc import Iterator
from glob import escape, glob


def read_records(work_dir: str) -> Iterator[dict]:
    """Yield the records of a run in the order they were written, a resumed run's later parts last.

    Args:
        work_dir (str): Work directory of a run. A line that is still being written is left out.
    """
    for path in sorted(glob(osp.join(escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        with open(path, encoding='utf-8') as file:
            for line in file:
                if line.endswith('\n'):
                    yield json.loads(line)


def read_scalars(work_dir: str, key: str) -> dict[int, float]:
    """Read one quantity of a run.

    Args:
        work_dir (str): Work directory of a run; a resumed run's parts are joined, the later one counts.
        key (str): Name as logged: 'accuracy/top1' counts in epochs, 'nmi/mean' in iterations.

    Returns:
        dict[int, float]: Step -> value, in the order of steps; empty before the first record.
    """
    values = {int(record['step']): float(record[key]) for record in read_records(work_dir) if key in record}
    return dict(sorted(values.items()))


def read_epoch(work_dir: str) -> int:
    """Read the last epoch that a run's log knows of; 0 before the first record."""
    return max((int(record['epoch']) for record in read_records(work_dir) if 'epoch' in record), default=0)
