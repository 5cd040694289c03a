# the same photographs at 112 x 112 pixels: a quarter of the patches, for a CPU; train.txt trains, val.txt chooses,
# test.txt reports
_base_ = './flowers17.py'

_base_.train_dataloader.dataset.pipeline[1].scale = 112  # RandomResizedCrop
_base_.val_dataloader.dataset.pipeline[1].scale, _base_.val_dataloader.dataset.pipeline[2].crop_size = 128, 112
_base_.test_dataloader.dataset.pipeline[1].scale, _base_.test_dataloader.dataset.pipeline[2].crop_size = 128, 112
