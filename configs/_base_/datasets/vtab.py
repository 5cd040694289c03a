# common to the 19 tasks of VTAB-1k: 800 + 200 training images, and the full test set; lists and images of each task
# in its folder below data/vtab-1k. Protocol and normalization as in fgvc.py
_base_ = ['./pipelines_vtab_224.py', './workers.py']

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

train_dataloader = dict(
    batch_size=32,
    num_workers={{_base_.workers}},
    dataset=dict(
        type='mmspt.VTAB1k', data_root='data/vtab-1k', split='trainval', pipeline={{_base_.train_pipeline}}),
    sampler=dict(type='mmspt.RoundDownSampler', shuffle=True),
    drop_last=True)

test_dataloader = dict(
    batch_size=64,
    num_workers={{_base_.workers}},
    dataset=dict(
        type='mmspt.VTAB1k', data_root='data/vtab-1k', split='test', pipeline={{_base_.test_pipeline}}),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='Accuracy', topk=(1, ))
test_cfg = dict()
