# the authors' augmentation for the fine-grained tasks
train_pipeline = [
    dict(type='mmspt.LoadImageFromFile'),
    dict(type='mmspt.RandomResizedCrop', scale=224, backend='torch', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmspt.PackInputs'),
]

test_pipeline = [
    dict(type='mmspt.LoadImageFromFile'),
    dict(type='mmspt.ResizeEdge', scale=256, edge='short', backend='torch', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='mmspt.PackInputs'),
]
