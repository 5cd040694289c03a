"""The scalars of a finished or running training, which MMEngine's LocalVisBackend writes."""
import json
import os.path as osp
from collections.abc import Iterator
from glob import escape, glob


def read_records(work_dir: str) -> list[dict]:
    """Read the records of a run in the order they were written, but for a line that is still being written.

    If the run was resumed, the later part replaces the earlier records from that moment on; if it was started again,
    all of them.

    Raises:
        ValueError: A whole line is not JSON.
    """
    records: list[dict] = []
    for path in sorted(glob(osp.join(escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        part = list(_read_part(path))
        begins, first = ({kind: moment for record in reversed(some) for kind, moment in _moments(record).items()}
                         for some in (part, records))
        # a run's first loss, or its first NMI (at iteration 0), is logged at the same moment whenever it begins
        restarted = any(begins.get(kind, float('inf')) <= first.get(kind, -1) for kind in ('iter', 'nmi/epoch'))
        kept = [record for record in records
                if all(moment < begins.get(kind, float('inf')) for kind, moment in _moments(record).items())]
        records = part if restarted else kept + part
    return records


def _read_part(path: str) -> Iterator[dict]:
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            if not line.endswith('\n'):
                return  # a running training may write on: the rest would be read as a line of its own
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"every line of a log must be JSON, but line {number} of '{path}' is not ({error}): "
                                 'take the line out') from error


def _moments(record: dict) -> dict[str, float]:
    """Return what a record counts in (training: iterations, NMI: epochs), and its count; in any other record each
    quantity counts in steps of its own, since these are epochs for one and iterations for another."""
    kinds = {kind: float(record[kind]) for kind in ('iter', 'nmi/epoch') if kind in record}
    return kinds or {key: float(record['step']) for key in record if key not in ('step', 'time', 'data_time')}


def read_scalars(work_dir: str, key: str) -> dict[int, float]:
    """Return step -> value of one quantity, in order; 'accuracy/top1' counts in epochs, 'nmi/mean' in iterations."""
    values = {int(record['step']): float(record[key]) for record in read_records(work_dir) if key in record}
    return dict(sorted(values.items()))


def read_epoch(work_dir: str) -> int:
    """Read the last epoch that a run's log knows of; 0 before the first record."""
    return max((int(record['epoch']) for record in read_records(work_dir) if 'epoch' in record), default=0)
