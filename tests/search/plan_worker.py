"""A worker of a plan, in a process of its own: plan_worker.py STORAGE FOLDER. Its runs are fake_train.py's."""
import contextlib
import os
import sys

from mmspt.search import storage, worker
from mmspt.search.queue import Queue
from mmspt.search.storage import open_storage
from mmspt.search.worker import Launcher, Worker


def main():
    address, folder = sys.argv[1:]
    storage.PAUSE, worker.INTERVAL = 0.2, 0.05
    opened = None
    while opened is None:
        with contextlib.suppress(ValueError):  # a test restarts the server
            opened = open_storage(address)
    queue = Queue(opened, 'plan', beat=0.5)
    train = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'fake_train.py')
    Worker(queue, Launcher(train, folder, 1), folder, [{}], lambda running, ended: None,
           check=lambda cell, folder: None).work()


if __name__ == '__main__':
    main()
