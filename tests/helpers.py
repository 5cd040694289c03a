"""What several tests need: golden files, tiny models, image folders, and the tools as commands."""
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

import forked
from forked import ROOT

DATA = ROOT / 'tests' / 'data'
TINY = dict(embed_dims=64, num_layers=4, num_heads=4, feedforward_channels=256)
SMALL = dict(arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64), img_size=32, patch_size=8)

JOB = """
_base_ = {base!r}
deterministic = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=4, num_heads=4, feedforward_channels=256),
        img_size=32, patch_size=8, num_prompts=5,
        init_cfg=dict(checkpoint={checkpoint!r})),
    head=dict(num_classes=3, in_channels=64))
train_dataloader = dict(batch_size=4, num_workers={workers}, dataset=dict(data_root={data!r}, pipeline=deterministic))
val_dataloader = dict(batch_size=4, num_workers={workers}, dataset=dict(data_root={data!r}, pipeline=deterministic))
test_dataloader = dict(batch_size=4, num_workers={workers}, dataset=dict(data_root={data!r}, pipeline=deterministic))
param_scheduler = dict(warmup=1, end=4)
train_cfg = dict(max_epochs=4, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""


def rng(seed=0):
    """A seeded generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def rng_states():
    """The states of Python's, NumPy's and torch's generators as values that compare with ==."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tolist(), *rest), torch.get_rng_state().tolist()


def stream(images, batch_size=4, order=None):
    """Yield (indices, images (B, ...)) batch by batch, as the token loader does."""
    order = list(range(len(images)) if order is None else order)
    for start in range(0, len(order), batch_size):
        yield order[start:start + batch_size], images[order[start:start + batch_size]]


NMI_MEANS = dict(geometric=lambda p, e: np.sqrt(p * e), arithmetic=lambda p, e: (p + e) / 2, min=min, max=max)


def nmi_by_definition(prompts, patches, normalizer='geometric'):
    """NMI of prompts (N_p, D) and one image's patches (N_e, D), in float64."""
    prompts, patches = prompts.double().numpy(), patches.double().numpy()
    weights = 1 / (1 + np.exp(-prompts @ patches.T / np.sqrt(prompts.shape[1])))
    joint = weights / weights.sum()
    p, e = joint.sum(1), joint.sum(0)
    information = (joint * np.log(joint / np.outer(p, e))).sum()
    return information / NMI_MEANS[normalizer](-(p * np.log(p)).sum(), -(e * np.log(e)).sum())


def golden_checkpoint(case: str) -> str:
    """Path of a golden case's checkpoint in FAIR's layout."""
    return str(next(DATA.glob(f'{case}_pretrain.*')))


def tiny_backbone(case: str = 'mae_deep', **kwargs) -> dict:
    """Config of a PromptedViT of the golden cases' size, with the case's checkpoint."""
    ssl, prompt_type = case.split('_')
    outputs = dict(mae=dict(out_type='avg_featmap', final_norm=False), mocov3=dict(out_type='cls_token'))[ssl]
    return dict(type='mmspt.PromptedViT', arch=TINY, img_size=32, patch_size=8, num_prompts=5, prompt_type=prompt_type,
                init_cfg=dict(type='Pretrained', checkpoint=golden_checkpoint(case))) | outputs | kwargs


def make_images(folder: Path, per_class: int, classes: int = 3, size: int = 40, seed: int = 0) -> list[tuple[str, int]]:
    """Write PNGs whose colour tells the class; return (relative path, label)."""
    generator = np.random.default_rng(seed)
    items = []
    for label in range(classes):
        (folder / f'class_{label}').mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            pixels = generator.integers(0, 120, (size, size, 3), dtype=np.uint8)
            pixels[..., label % 3] += 120
            name = f'class_{label}/{i:03d}.png'
            Image.fromarray(pixels).save(folder / name)
            items.append((name, label))
    return items


def environment():
    """The variables for a command that imports mmspt and, if `make test-forks` runs the tests, the forks."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(('PYTEST', 'LOCAL_RANK'))}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    return kept | dict(OMP_NUM_THREADS='1', PYTHON=sys.executable, PYTHONPATH=path)


def command(*args, cwd=None, fails=False):
    """Run a command as a user would; return its output."""
    done = subprocess.run([str(arg) for arg in args], env=environment(), cwd=cwd, capture_output=True, text=True,
                          timeout=300, check=False)
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, output[-6000:]
    return output


def tool(name, *args, cwd=None, fails=False):
    """Run tools/``name`` in a process that has imported everything; return its output."""
    with tempfile.NamedTemporaryFile(suffix='.log') as log:
        code, output = forked.run(name, args, log.name, environment=environment(), cwd=cwd)
    assert (code != 0) == fails, output[-6000:]
    return output


def load_tool(name):
    """Import tools/``name``.py, to call its functions in this process."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scalars(work_dir):
    """All records of a run's newest log."""
    path = max(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_job(root: Path) -> SimpleNamespace:
    """Data of 3 classes, and a config that inherits configs/spt/vit-b_mae_flowers17.py; ``write`` writes it anew."""
    data = root / 'data'
    items = make_images(data / 'images', per_class=8)
    for name, keep in (('train', range(0, 4)), ('val', range(4, 6)), ('test', range(6, 8))):
        lines = [f'{path} {label}' for i, (path, label) in enumerate(items) if i % 8 in keep]
        (data / f'{name}.txt').write_text('\n'.join(lines) + '\n')
    config = root / 'job.py'

    def write(workers=0, base=ROOT / 'configs/spt/vit-b_mae_flowers17.py', extra=''):
        config.write_text(JOB.format(base=str(base), checkpoint=golden_checkpoint('mae_deep'), data=str(data),
                                     workers=workers) + extra)

    write()
    return SimpleNamespace(config=str(config), data=data, write=write, root=root)


def finished_run(root: Path, extra: str) -> SimpleNamespace:
    """A job of :func:`make_job` with lines of its own, and the work directory of its training."""
    job = make_job(root)
    job.write(extra=extra)
    run = root / 'run'
    tool('train.py', job.config, '--work-dir', run)
    return SimpleNamespace(job=job, run=run)


def spawn_two(function, folder: Path) -> None:
    """Run ``function(rank, folder)`` in two processes; two minutes are enough unless they wait for each other."""
    context = torch.multiprocessing.start_processes(function, (str(folder), ), nprocs=2, join=False,
                                                    start_method='forkserver')
    try:
        deadline = time.monotonic() + 120
        while not context.join(timeout=1):
            assert time.monotonic() < deadline, 'the processes wait for each other'
    finally:
        for process in context.processes:
            process.kill()
