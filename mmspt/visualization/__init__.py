from .picture import Picture, save_picture, styled
from .run_folder import RunFolder

__all__ = ['Picture', 'RunFolder', 'save_picture', 'styled']
