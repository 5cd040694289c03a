# SmallNORB-Ele (Structured): 1,000 training and 12,150 test images
_base_ = '../vtab.py'

data_preprocessor = dict(num_classes=9)
train_dataloader = dict(dataset=dict(task='smallnorb_ele'))
test_dataloader = dict(dataset=dict(task='smallnorb_ele'))
