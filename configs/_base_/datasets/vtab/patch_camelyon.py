# Patch Camelyon (Specialized): 1,000 training and 32,768 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=2)
train_dataloader = dict(dataset=dict(task='patch_camelyon'))
test_dataloader = dict(dataset=dict(task='patch_camelyon'))
