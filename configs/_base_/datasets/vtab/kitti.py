# KITTI-Dist (Structured): 1,000 training and 711 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=4)
train_dataloader = dict(dataset=dict(task='kitti'))
test_dataloader = dict(dataset=dict(task='kitti'))
