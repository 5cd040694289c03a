"""Where a model computes."""
import torch


def check_device(device: str | torch.device | None) -> torch.device:
    """Return the device; for None the GPU, or the CPU if there is none. ValueError if this machine lacks it."""
    try:
        found = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"the device must be one of this machine, but '{device}' is not "
                         f'({str(error).splitlines()[0]}): leave it out, or say cpu') from error
    return found
