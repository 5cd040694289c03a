# VTAB-1k: no augmentation, the same for training and testing
train_pipeline = [
    dict(type='mmspt.LoadImageFromFile'),
    dict(type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

test_pipeline = train_pipeline
