"""How the tutorials' cells run: from the checkout's root; a command that fails, fails its cell."""
import os
import subprocess
import warnings
from pathlib import Path

from IPython import get_ipython

SHELL = get_ipython()


def run_checked(command):
    """Show what a command writes to its output, and raise an error with the rest if it fails."""
    done = subprocess.run(['bash', '-e', '-o', 'pipefail', '-c', command], text=True, capture_output=True, check=False)
    print(done.stdout.rstrip())
    if done.returncode:
        raise RuntimeError(f'{command} ended with {done.returncode}:\n{done.stderr[-3000:]}')


os.chdir(Path(__file__).resolve().parents[5])
os.makedirs('work_dirs', exist_ok=True)
os.environ.update(PYTHONWARNINGS='ignore', COLUMNS='100')
warnings.simplefilter('ignore')
os.environ.pop('FORCE_COLOR', None)  # of IPython's kernel: no progress bars in the pages
SHELL.system = lambda command: run_checked(SHELL.var_expand(command, depth=1))  # !command
SHELL.register_magic_function(lambda line, cell: run_checked(cell), 'cell', 'bash')
