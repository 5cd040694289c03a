# Pets (Natural): 1,000 training and 3,669 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=37)
train_dataloader = dict(dataset=dict(task='oxford_iiit_pet'))
test_dataloader = dict(dataset=dict(task='oxford_iiit_pet'))
