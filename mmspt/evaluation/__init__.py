from .description import describe_run
from .method_names import unusual
from .published import PUBLISHED, SOURCES, Published
from .result import RESULT_FILE, Result, plain_metrics, read_result, set_aside, write_result
from .scalars import read_epoch, read_records, read_scalars
from .settings import Run, find_caveat
from .tables import METRIC, Cell, Row, Table, build_tables
from .work_dirs import Found, Unfinished, find_runs

__all__ = [
    'METRIC', 'PUBLISHED', 'RESULT_FILE', 'SOURCES', 'Cell', 'Found', 'Published', 'Result', 'Row', 'Run', 'Table',
    'Unfinished', 'build_tables', 'describe_run', 'find_caveat', 'find_runs', 'plain_metrics', 'read_epoch',
    'read_records', 'read_result', 'read_scalars', 'set_aside', 'unusual', 'write_result'
]
