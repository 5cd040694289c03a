from .curves import plot_accuracy, read_epoch, read_scalars

__all__ = ['plot_accuracy', 'read_epoch', 'read_scalars']
