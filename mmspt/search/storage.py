"""Where a plan is kept: an Optuna storage that its workers share."""
import os
import os.path as osp
import re
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

import optuna
from mmengine.logging import MMLogger
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

FILE = 'study.db'
JOURNAL = '.journal'
"""Ending of the files that are Optuna's journals."""
PATIENCE = 600.
"""Seconds for which a storage may be away before a worker gives up."""
PAUSE = 2.
"""Seconds between two attempts to reach it."""
AWAY = (optuna.exceptions.StorageInternalError, SQLAlchemyError, OSError)
T = TypeVar('T')


def open_storage(address: str) -> BaseStorage:
    """Open a storage, made if need be.

    Args:
        address (str): A database's URL (``postgresql+psycopg://USER@HOST/NAME``), a path that ends in '.journal'
            (Optuna's journal, which a shared file system may hold), or any other path (SQLite, on a local disk).

    Raises:
        ValueError: It cannot be reached or made.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if '://' not in address:
            os.makedirs(osp.dirname(osp.abspath(address)), exist_ok=True)
        if address.endswith(JOURNAL):
            return JournalStorage(JournalFileBackend(address))
        options: dict = dict(pool_pre_ping=True)
        if '://' not in address:
            # as a URI, in which no letter of the path has a meaning
            address = f'sqlite:///file:{quote(osp.abspath(address))}?uri=true'
        if address.startswith('sqlite'):
            options['connect_args'] = dict(timeout=60)
        return optuna.storages.get_storage(RDBStorage(address, engine_kwargs=options))
    except (*AWAY, ImportError) as error:
        raise ValueError(f"a plan's storage must be one that can be opened, but '{hide_password(address)}' is not "
                         f'({explain(error)}): start the server, correct --storage, or install the driver that it '
                         "names (for PostgreSQL: pip install 'psycopg[binary]')") from error


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
