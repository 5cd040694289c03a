"""What a run leaves, and whether it is what an undisturbed one leaves."""
import json
from pathlib import Path
from types import SimpleNamespace

from mmengine.runner.checkpoint import CheckpointLoader

from mmspt.evaluation.scalars import read_scalars


def outcome(folder: Path) -> SimpleNamespace:
    """Final metrics, validations by epoch, losses by iteration, trained weights, and the names of the files left."""
    weights = CheckpointLoader.load_checkpoint(str(folder / 'epoch_4.pth'))['state_dict']
    return SimpleNamespace(
        metrics=json.loads((folder / 'result.json').read_text())['metrics'],
        validations=read_scalars(str(folder), 'accuracy/top1'),
        losses=read_scalars(str(folder), 'loss'),
        weights={name: weight for name, weight in weights.items() if name.startswith('head') or 'prompts' in name},
        files=sorted(path.name for path in folder.iterdir() if path.is_file()))


def check_same(folder: Path, expected: SimpleNamespace) -> None:
    """Hold a run that was disturbed against the one that was not: to the bit."""
    found = outcome(folder)
    assert found.metrics == expected.metrics
    assert found.validations == expected.validations
    assert found.losses == expected.losses
    assert found.files == expected.files
    for name, weight in expected.weights.items():
        assert weight.equal(found.weights[name]), name
