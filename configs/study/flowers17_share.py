# configs/plans/study.yaml searches it: labels for one or three tenths (MMSPT_TENTHS) of Flowers-17's train and val, as
# many of each class, since the lists are sorted by class and their classes divide by ten
_base_ = '../spt/vit-s_dinov2_flowers17.py'

tenths = int('{{$MMSPT_TENTHS:1}}')
_base_.train_dataloader.dataset.indices = [i for i in range(680) if i % 10 < tenths]
_base_.val_dataloader.dataset.indices = [i for i in range(340) if i % 10 < tenths]
