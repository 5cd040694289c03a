from .description import describe
from .published import PUBLISHED, SOURCES, Published
from .result import FILE_NAME, Result, plain_metrics, read_result, write_result
from .settings import Run, why_apart
from .tables import METRIC, Cell, Row, Table, build_tables
from .work_dirs import Unfinished, find_runs

__all__ = ['FILE_NAME', 'METRIC', 'PUBLISHED', 'SOURCES', 'Cell', 'Published', 'Result', 'Row', 'Run', 'Table',
           'Unfinished', 'build_tables', 'describe', 'find_runs', 'plain_metrics', 'read_result', 'why_apart',
           'write_result']
