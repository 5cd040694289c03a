"""Results as a run would leave them."""
from mmspt.datasets.tasks import TASKS
from mmspt.evaluation import Result, Run


def make(**changes) -> Result:
    """SPT-Deep of MAE on CUB, tested as the benchmark does; the task brings its group and its number of images."""
    task = changes.get('task', 'cub')
    known = dict(group=TASKS[task].group, num_images=TASKS[task].sizes['test']) if task in TASKS else dict(
        group='Other', num_images=100)
    return Result(**dict(
        config=f'vit-b_mae_{task}', task=task, split='test', trained_on=dict(dataset='CUB', split='trainval'),
        method='SPT-Deep', initializer='RandomSampleInit', num_prompts=20, arch='ViT-B', pretraining='MAE', tta=False,
        recipe={'optim_wrapper.optimizer.lr': 0.05}, seed=0, epoch=100, max_epochs=100, finished=True,
        metrics={'accuracy/top1': 80.}, checkpoint='epoch_100.pth', versions={}) | known | changes)


def run(accuracy, folder='run', **changes) -> Run:
    """A finished run with an accuracy in percent."""
    return Run(folder, make(metrics={'accuracy/top1': accuracy}, **changes))
