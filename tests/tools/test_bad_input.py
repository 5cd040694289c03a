"""What a user can get wrong in a job, each with an error that gives rule, value and remedy, before work is lost."""
import argparse

import pytest
import torch
from mmengine.config import Config

from mmspt.engine.launch import build_runner, merge_training_args

FLAGS = dict(no_validate=False, launcher='none', amp=None, resume=None, auto_scale_lr=False, no_pin_memory=False,
             no_persistent_workers=False)


def train(job, work_dir=None, amp=None, **options):
    """What tools/train.py does, in this process."""
    work_dir = str(work_dir or job.root / 'run')
    args = argparse.Namespace(config=job.config, work_dir=work_dir, cfg_options=options, **FLAGS | dict(amp=amp))
    cfg = merge_training_args(Config.fromfile(job.config), args)
    cfg.experiment_name = job.root.name  # MMEngine keeps runners by name
    build_runner(cfg).train()


def no_work_lost(job):
    assert not list(job.root.glob('run/*.pth')) and not list(job.root.glob('run/*.safetensors*'))


@pytest.mark.parametrize(('option', 'value', 'error', 'message'), [
    ('model.backbone.init_cfg.checkpoint', '', ValueError, r'must name the pre-trained weights.*--cfg-options'),
    ('model.backbone.init_cfg.checkpoint', 'absent.pth', FileNotFoundError, r'absent\.pth can not be found'),
    ('model.backbone.init_cfg', None, RuntimeError, r'every frozen weight must come from a checkpoint.*init_cfg'),
    ('model.backbone.arch.num_layers', 3, ValueError, 'it has 4, the backbone 3'),
    ('model.backbone.prompt_type', 'shalow', ValueError, "prompt_type must be one of .* got 'shalow'"),
    ('optim_wraper.optimizer.lr', 0.1, ValueError, "nothing reads 'optim_wraper.optimizer.lr': write optim_wrapper"),
    ('optim_wrapper.paramwise_cfg.head_decy', 9, ValueError, 'head_decy=9: write head_decay'),
    ('model.head.num_classes', 2, ValueError, r'must lie in \[0, 2\).*labels from 0 to 2.*num_classes=3'),
    ('custom_hooks.0.initializer.type', 'mmspt.KMeanInit', KeyError, 'KMeanInit'),
    ('train_dataloader.dataset.data_root', '/nowhere', FileNotFoundError, "'/nowhere' does not exist.*data_root"),
    ('train_dataloader.batch_size', 100, ValueError, 'at least one batch an epoch, got by_epoch=True and 0 batches'),
])
def test_options(job, option, value, error, message):
    with pytest.raises(error, match=message):
        train(job, **{option: value, 'train_dataloader.drop_last': True})
    no_work_lost(job)


def test_activation_checkpointing_of_the_whole_backbone(job):
    """It would cut the prompts off."""
    with pytest.raises(RuntimeError, match='the loss must reach the prompts, but no gradient came'):
        train(job, activation_checkpointing=['backbone'])


def test_unreadable_image(job):
    for path in (job.data / 'images/class_1').iterdir():
        path.write_bytes(b'not an image')
    with pytest.raises(ValueError, match=r"every image must be readable, but '.*class_1/00\d\.png' is not.*fetch it"):
        train(job, **{'custom_hooks.0.num_images': 'all'})


def test_missing_test_data_are_known_before_the_first_step(job):
    missing = {'test_dataloader.dataset.ann_file': 'nowhere.txt', 'train_cfg.max_epochs': 1}
    with pytest.raises(FileNotFoundError, match=r'nowhere\.txt.*default_hooks\.result\.after_train=False'):
        train(job, **missing)
    no_work_lost(job)
    train(job, **missing, **{'default_hooks.result.after_train': False})
    assert (job.root / 'run/epoch_1.pth').exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU computes it')
def test_float16_without_a_gpu(job):
    with pytest.raises(ValueError, match=r"on a CPU must be bfloat16, got float16: set .*--amp bfloat16"):
        train(job, amp='float16')
    no_work_lost(job)


def test_mixed_precision_of_another_kind(job):
    job.write(extra="\noptim_wrapper = dict(type='ApexOptimWrapper')\n")
    with pytest.raises(ValueError, match=r'--amp needs optim_wrapper\.type OptimWrapper .* got ApexOptimWrapper:'):
        train(job, amp='bfloat16')
    assert not (job.root / 'run').exists()


def test_work_directory_that_cannot_be_written(job):
    (job.root / 'file').write_text('')
    with pytest.raises(OSError, match=r"must be a folder that can be written, got '.*/file/run'.*--work-dir"):
        train(job, work_dir=job.root / 'file/run')


def test_variables_of_a_config_that_nobody_reads(job):
    """They may be the config's own, so the log names them, and the run goes on."""
    job.write(extra="\noptim_wraper = dict()\n_model = my_own = 1\n"
                    "model['data_preprocessor'] = dict(type='ClsDataPreprocessor', num_classes=3)\n")
    with pytest.raises(ValueError, match=r'must lie in \[0, 2\)'):
        train(job, **{'model.head.num_classes': 2})
    log, = [path.read_text() for path in job.root.glob('run/*/*.log')]
    assert "does not read the config's variable 'optim_wraper': write optim_wrapper" in log
    assert 'model.data_preprocessor acts, and data_preprocessor of the config does not' in log
    assert "variable '_model'" not in log and "variable 'my_own'" not in log
