# NABirds: 23,929 training images (21,536 + 2,393) and 24,633 test images; the official archive unpacked in data/nabirds
_base_ = './fgvc.py'

data_preprocessor = dict(num_classes=555)
train_dataloader = dict(dataset=dict(type='mmspt.NABirds', data_root='data/nabirds'))
test_dataloader = dict(dataset=dict(type='mmspt.NABirds', data_root='data/nabirds'))
