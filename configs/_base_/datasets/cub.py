# CUB-200-2011: 5,994 training images (5,394 + 600) and 5,794 test images; the official archive unpacked in
# data/CUB_200_2011. The recipes train on all of the former (trainval); tools/sweep.py chooses on train -> val
_base_ = './fgvc.py'

data_preprocessor = dict(num_classes=200)
train_dataloader = dict(dataset=dict(type='mmspt.CUB', data_root='data/CUB_200_2011'))
test_dataloader = dict(dataset=dict(type='mmspt.CUB', data_root='data/CUB_200_2011'))
