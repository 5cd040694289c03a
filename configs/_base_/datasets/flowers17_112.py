# the same photographs at 112 x 112 pixels: a quarter of the patches, for a CPU; train.txt trains, val.txt chooses,
# test.txt reports
_base_ = './flowers17.py'

bicubic = dict(backend='pillow', interpolation='bicubic')
train_pipeline = [
    dict(type='mmspt.LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=112, **bicubic),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmspt.LoadImageFromFile'),
    dict(type='ResizeEdge', scale=128, edge='short', **bicubic),
    dict(type='CenterCrop', crop_size=112),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
