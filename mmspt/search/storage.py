"""Where a plan is kept: an Optuna storage that its workers share."""
import json
import math
import os
import os.path as osp
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import optuna
from mmengine.logging import MMLogger
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import Connection, event
from sqlalchemy.exc import SQLAlchemyError

FILE = 'study.db'
JOURNAL = '.journal'
"""Ending of the files that are Optuna's journals."""
PATIENCE = 600.
"""Seconds for which a storage may be away before a worker gives up."""
SETTLING = 3.
"""Seconds for which a new SQLite file may be one that another process is making."""
PAUSE = 2.
"""Seconds between two attempts to reach it."""
AWAY = (optuna.exceptions.StorageInternalError, SQLAlchemyError, OSError)
T = TypeVar('T')


class Journal(JournalFileBackend):
    """Optuna's journal, without the half line that a full disk would leave in it."""

    def __init__(self, path: str) -> None:
        self.path, self.lock = path, JournalFileSymlinkLock(path)
        super().__init__(path, self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines, or nothing.

        Raises:
            OSError: They cannot be written.
        """
        lines = ''.join(f'{json.dumps(log, separators=(",", ":"))}\n' for log in logs)
        self.lock.acquire()
        try:
            size = osp.getsize(self.path)
            try:
                with open(self.path, 'ab') as file:
                    file.write(lines.encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, size)
                raise
        finally:
            self.lock.release()


def open_storage(address: str, create: bool = True, patience: float = 0.) -> BaseStorage:
    """Open a storage.

    Args:
        address (str): A database's URL (``postgresql+psycopg://USER@HOST/NAME``), a path that ends in '.journal'
            (Optuna's journal, which a shared file system may hold), or any other path (SQLite, on a local disk).
        create (bool): Whether a file is made if there is none. Defaults to True.
        patience (float): Seconds for which a server may be away, from the first failure on. Defaults to 0.

    Raises:
        ValueError: It cannot be reached or made.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if '://' not in address and not create and not osp.isfile(address):
        raise ValueError(f"a plan's storage must have been begun, but there is no '{address}': begin the plan with "
                         'tools/benchmark.py PLAN, or correct --storage or --work-dir')
    url = address
    try:
        if '://' not in address:
            os.makedirs(osp.dirname(osp.abspath(address)), exist_ok=True)
            if address.endswith(JOURNAL):
                return JournalStorage(Journal(address))
            # as a URI, in which no letter of the path has a meaning
            url = f'sqlite:///file:{quote(osp.abspath(address))}?uri=true'
            patience = SETTLING  # of several processes that make its tables at once, all but one fail
        end = math.inf
        while True:
            try:
                return _open_database(url)
            except AWAY:
                end = min(end, time.monotonic() + patience)
                if time.monotonic() >= end:
                    raise
                time.sleep(PAUSE)
    except (*AWAY, ImportError, ValueError) as error:
        raise ValueError(f"a plan's storage must be one that can be opened, but '{hide_password(address)}' is not "
                         f'({explain(error)}): start the server, correct --storage, or install the driver that it '
                         "names (for PostgreSQL: pip install 'psycopg[binary]')") from error


def _open_database(address: str) -> BaseStorage:
    connect: dict[str, Any] = {}
    if address.startswith('sqlite'):
        connect = dict(timeout=60)
    elif address.startswith('postgresql'):  # a host that is gone answers nothing: without these it is waited for
        connect = dict(connect_timeout=10, keepalives_idle=30, keepalives_interval=10, keepalives_count=3,
                       tcp_user_timeout=60000)
    storage = RDBStorage(address, engine_kwargs=dict(pool_pre_ping=True, connect_args=connect))
    if storage.engine.name == 'sqlite':
        event.listen(storage.engine, 'begin', _begin_immediately)
    return optuna.storages.get_storage(storage)


def _begin_immediately(connection: Connection) -> None:
    """Let a transaction that reads before it writes hold the lock from its first read.

    Python's driver begins one at its first write only, so two workers could read that a trial waits, and both take it.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.isolation_level = None
    connection.exec_driver_sql('BEGIN IMMEDIATE')


def hide_password(address: str) -> str:
    """Return a URL without its password."""
    return re.sub(r'(://[^:/@]*):[^@/]*@', r'\1:***@', address)


def explain(error: BaseException) -> str:
    """Return the first line of an error's own cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return hide_password(str(error).strip().partition('\n')[0]) or type(error).__name__


def patiently(call: Callable[[], T], patience: float | None = None) -> T:
    """Return what a call of a storage returns; repeat it while the storage cannot be reached.

    Raises:
        RuntimeError: It was away for ``patience`` seconds, by default :data:`PATIENCE`.
    """
    patience, began = PATIENCE if patience is None else patience, time.monotonic()
    said = False
    while True:
        try:
            return call()
        except AWAY as error:
            if time.monotonic() - began > patience:
                raise RuntimeError(f"the plan's storage must answer, but it did not for {patience:.0f} s "
                                   f'({explain(error)}): what is finished is kept; start it, and give the same '
                                   'command again') from error
            if not said:
                MMLogger.get_current_instance().warning(
                    f"The plan's storage does not answer ({explain(error)}): trying again for {patience:.0f} s.")
                said = True
            time.sleep(PAUSE)
