default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # save_frozen=False: checkpoints hold what was trained; the backbone is read from model.backbone.init_cfg again
    checkpoint=dict(
        type='mmspt.CheckpointHook', interval=10, max_keep_ckpts=1, save_best='auto', save_frozen=False),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
    result=dict(type='mmspt.ResultHook'),
    class_names=dict(type='mmspt.ClassNamesHook'),
    metrics=dict(type='mmspt.MetricsHook'),
    nmi=dict(type='mmspt.PromptNMIHook', interval=50),
    global_batch=dict(type='mmspt.GlobalBatchHook'),
    finite_loss=dict(type='mmspt.FiniteLossHook'),
    resume=dict(type='mmspt.ResumeHook'),
    preemption=dict(type='mmspt.PreemptionHook'),
    bad_images=dict(type='mmspt.BadImagesHook'),
    data_time=dict(type='mmspt.DataTimeHook'),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

# MMEngine leaves out a backend whose save_dir is None, so this switches TensorBoard on:
#     --cfg-options visualizer.vis_backends.1.save_dir=work_dirs/tensorboard/NAME
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend', save_dir=None)]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

# True: tools/ try every image first and go on without those that cannot be loaded, which are listed at the end
skip_bad_images = False

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
