# 100 species of CUB-200-2011 at 112 x 112 pixels, in the official layout in data/cub100. As the fine-grained tasks:
# trained on trainval, tested once; tools/sweep.py chooses on train -> val
_base_ = './cub.py'

_base_.train_dataloader.dataset.pipeline[1].scale = 112  # RandomResizedCrop
_base_.test_dataloader.dataset.pipeline[1].scale, _base_.test_dataloader.dataset.pipeline[2].crop_size = 128, 112
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(data_root='data/cub100'))
test_dataloader = dict(dataset=dict(data_root='data/cub100'))
