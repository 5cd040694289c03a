# CUB-200-2011: 5,994 training and 5,794 test images; the official archive unpacked into data/CUB_200_2011
_base_ = './pipelines_224.py'

data_preprocessor = dict(
    num_classes=200, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    dataset=dict(type='CUB', data_root='data/CUB_200_2011', split='train', pipeline={{_base_.train_pipeline}}),
    sampler=dict(type='DefaultSampler', shuffle=True))

val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    dataset=dict(type='CUB', data_root='data/CUB_200_2011', split='test', pipeline={{_base_.test_pipeline}}),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = dict(type='Accuracy', topk=(1, ))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
