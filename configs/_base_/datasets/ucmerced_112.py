# UC Merced land use at 112 x 112 pixels, 21 classes of aerial photographs: 798 / 210 / 1,091, lists as Flowers-17's
_base_ = './flowers17_112.py'

data_preprocessor = dict(num_classes=21)
train_dataloader = dict(dataset=dict(data_root='data/ucmerced'))
val_dataloader = dict(dataset=dict(data_root='data/ucmerced'))
test_dataloader = dict(dataset=dict(data_root='data/ucmerced'))
