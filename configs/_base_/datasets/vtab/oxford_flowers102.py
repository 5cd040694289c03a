# Flowers102 (Natural): 1,000 training and 6,149 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=102)
train_dataloader = dict(dataset=dict(task='oxford_flowers102'))
test_dataloader = dict(dataset=dict(task='oxford_flowers102'))
