# VTAB-1k: no augmentation, the same for training and testing
train_pipeline = [
    dict(type='mmspt.LoadImageFromFile'),
    dict(type='mmspt.ResizeEdge', scale=224, edge='short', backend='torch', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='mmspt.PackInputs'),
]

test_pipeline = train_pipeline
