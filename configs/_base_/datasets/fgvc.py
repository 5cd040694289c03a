# common to the five fine-grained tasks. A recipe trains on `trainval` and is tested once, on `test`, after its last
# epoch; it never validates. What must be chosen, tools/sweep.py chooses with `train` and `val`. ImageNet's mean and
# standard deviation for every backbone, the supervised too, and no incomplete batch, as in the authors' code
_base_ = ['./pipelines_224.py', './workers.py']

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

train_dataloader = dict(
    batch_size=32,
    num_workers={{_base_.workers}},
    dataset=dict(split='trainval', pipeline={{_base_.train_pipeline}}),
    sampler=dict(type='mmspt.RoundDownSampler', shuffle=True),
    drop_last=True)

test_dataloader = dict(
    batch_size=64,
    num_workers={{_base_.workers}},
    dataset=dict(split='test', pipeline={{_base_.test_pipeline}}),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='Accuracy', topk=(1, ))
test_cfg = dict()
