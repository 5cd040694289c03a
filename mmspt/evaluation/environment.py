"""The environment of a run, which MMEngine writes at the head of its log."""
import os.path as osp
import re
from glob import escape, glob

BLOCK = re.compile(r'\nSystem environment:\n(.*?)\n-{40,}', re.DOTALL)
LINE = re.compile(r'^ {4}(\S[^:]*): (.*)$', re.MULTILINE)
LEFT_OUT = ('PyTorch compiling details', 'mp_cfg', 'GCC', 'NVCC')


def read_environment(work_dir: str) -> dict[str, str]:
    """Read Python, PyTorch, GPUs, seed, launcher, ... at the last start of a run; empty if no log has them."""
    for path in sorted(glob(osp.join(escape(work_dir), '*', '*.log')), reverse=True):
        with open(path, encoding='utf-8', errors='replace') as file:
            match = BLOCK.search(file.read(100_000))
        if match:
            return {key: value for key, value in LINE.findall(match[1]) if key not in LEFT_OUT}
    return {}
