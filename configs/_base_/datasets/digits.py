# scikit-learn's handwritten digits: 20 labelled images a class to train on, 300 to choose on, 500 to report
data_preprocessor = dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)

test_pipeline = [dict(type='Resize', scale=16, interpolation='bicubic'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type='mmspt.Digits', split='train', images_per_class=20, pipeline=[
        dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.8, 1.0), interpolation='bicubic'),
        dict(type='PackInputs'),
    ]),
    sampler=dict(type='DefaultSampler', shuffle=True))

val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type='mmspt.Digits', split='val', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = dict(type='Accuracy', topk=(1, ))
val_cfg = dict()

test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type='mmspt.Digits', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = val_evaluator
test_cfg = dict()
