# configs/plans/study.yaml searches it: labels for a quarter of CUB-100's 2,999 training images, 450 of train (four or
# five of a species, since the list is sorted by species) and all 300 of val
_base_ = '../spt/vit-s_dinov2_cub100.py'

train_dataloader = dict(dataset=dict(split='train', indices=list(range(0, 2699, 6))))
