from .description import describe, unusual
from .published import PUBLISHED, SOURCES, Published
from .result import FILE_NAME, Result, plain_metrics, read_result, set_aside, write_result
from .scalars import read_epoch, read_records, read_scalars
from .settings import Run, why_apart
from .tables import METRIC, Cell, Row, Table, build_tables
from .work_dirs import Found, Unfinished, Untested, find_runs

__all__ = [
    'FILE_NAME', 'METRIC', 'PUBLISHED', 'SOURCES', 'Cell', 'Found', 'Published', 'Result', 'Row', 'Run', 'Table',
    'Unfinished', 'Untested', 'build_tables', 'describe', 'find_runs', 'plain_metrics', 'read_epoch',
    'read_records', 'read_result', 'read_scalars', 'set_aside', 'unusual', 'why_apart', 'write_result'
]
