"""The scalars of a finished or running training, which MMEngine's LocalVisBackend writes."""
import json
import os.path as osp
from collections.abc import Iterator
from glob import escape, glob


def read_records(work_dir: str) -> list[dict]:
    """Read the records of a run in the order they were written.

    Args:
        work_dir (str): Work directory of a run. If it was resumed, the later part replaces the earlier records from
            that moment on; if it was started again, all of them. A line that is still being written is left out.

    Raises:
        ValueError: A whole line is not JSON.
    """
    records: list[dict] = []
    for path in sorted(glob(osp.join(escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        part = list(_read_part(path))
        begins: dict[str, float] = {}
        for record in part:
            begins.setdefault(*_moment(record))
        first: dict[str, float] = {}
        for record in records:
            first.setdefault(*_moment(record))
        # a run's first loss, or its first NMI (at iteration 0), is logged at the same moment whenever it begins
        restarted = any(begins.get(kind, float('inf')) <= first.get(kind, -1) for kind in ('iter', 'nmi/epoch'))
        records = [] if restarted else [record for record in records if _is_before(record, begins)]
        records += part
    return records


def _read_part(path: str) -> Iterator[dict]:
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            if not line.endswith('\n'):
                return  # a running training may write on: the rest would be read as a line of its own
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"every line of a log must be JSON, but line {number} of '{path}' is not ({error}): "
                                 'take the line out') from error


def _moment(record: dict) -> tuple[str, float]:
    """Return the unit that a record counts in (training: iterations, NMI: epochs, others: steps), and its count."""
    kind = next((kind for kind in ('iter', 'nmi/epoch') if kind in record), 'step')
    return kind, float(record[kind])


def _is_before(record: dict, begins: dict[str, float]) -> bool:
    kind, moment = _moment(record)
    return moment < begins.get(kind, float('inf'))


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
