# the same photographs at 32 x 32 pixels, each the mean of its area: bicubic without a filter, as in flowers17_32.py,
# takes few pixels of many (aliasing), unlike what the backbones of CIFAR-10 saw before
_base_ = './flowers17.py'

classes = [
    'bluebell', 'buttercup', 'coltsfoot', 'cowslip', 'crocus', 'daffodil', 'daisy', 'dandelion', 'fritillary', 'iris',
    'lily of the valley', 'pansy', 'snowdrop', 'sunflower', 'tigerlily', 'tulip', 'windflower',
]

small = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=32, interpolation='area')]
train_pipeline = [*small, dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
test_pipeline = [*small, dict(type='PackInputs')]
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, dataset=dict(pipeline=train_pipeline, metainfo=dict(classes=classes)))
val_dataloader = dict(**loader, dataset=dict(pipeline=test_pipeline, metainfo=dict(classes=classes)))
test_dataloader = dict(**loader, dataset=dict(pipeline=test_pipeline, metainfo=dict(classes=classes)))
