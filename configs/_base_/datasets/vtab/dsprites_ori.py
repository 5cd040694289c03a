# dSprites-Ori (Structured): 1,000 training and 73,728 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=16)
train_dataloader = dict(dataset=dict(task='dsprites_ori'))
test_dataloader = dict(dataset=dict(task='dsprites_ori'))
