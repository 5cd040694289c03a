# Oxford 17 Category Flower Dataset: 680 / 340 / 340 photographs, list files `<path> <label>`; choose on val
_base_ = ['./pipelines_224.py', './workers.py']

data_preprocessor = dict(
    num_classes=17, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

train_dataloader = dict(
    batch_size=32,
    num_workers={{_base_.workers}},
    dataset=dict(
        type='mmspt.CustomDataset',
        data_root='data/flowers17',
        data_prefix='images',
        ann_file='train.txt',
        pipeline={{_base_.train_pipeline}}),
    sampler=dict(type='DefaultSampler', shuffle=True))

val_dataloader = dict(
    batch_size=64,
    num_workers={{_base_.workers}},
    dataset=dict(
        type='mmspt.CustomDataset',
        data_root='data/flowers17',
        data_prefix='images',
        ann_file='val.txt',
        pipeline={{_base_.test_pipeline}}),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = dict(type='Accuracy', topk=(1, ))
val_cfg = dict()

test_dataloader = dict(
    batch_size=64,
    num_workers={{_base_.workers}},
    dataset=dict(
        type='mmspt.CustomDataset',
        data_root='data/flowers17',
        data_prefix='images',
        ann_file='test.txt',
        pipeline={{_base_.test_pipeline}}),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = val_evaluator
test_cfg = dict()
