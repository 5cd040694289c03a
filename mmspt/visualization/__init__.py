from .curves import draw_curves
from .drift import draw_drift
from .nmi import draw_nmi
from .picture import Picture, save_picture, styled
from .run_folder import RunFolder

__all__ = ['Picture', 'RunFolder', 'draw_curves', 'draw_drift', 'draw_nmi', 'save_picture', 'styled']
