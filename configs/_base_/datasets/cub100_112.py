# 100 species of CUB-200-2011 at 112 x 112 pixels, in the official layout in data/cub100. As the fine-grained tasks:
# trained on trainval, tested once; tools/sweep.py chooses on train -> val
_base_ = './cub.py'

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
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(data_root='data/cub100', pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(data_root='data/cub100', pipeline=test_pipeline))
