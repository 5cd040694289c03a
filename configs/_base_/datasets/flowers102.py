# Oxford Flowers 102: 2,040 training images (1,020 + 1,020, the official split) and 6,149 test images; the official
# files in data/flowers102
_base_ = './fgvc.py'

data_preprocessor = dict(num_classes=102)
train_dataloader = dict(dataset=dict(type='mmspt.Flowers102', data_root='data/flowers102'))
test_dataloader = dict(dataset=dict(type='mmspt.Flowers102', data_root='data/flowers102'))
