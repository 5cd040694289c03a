from .attention import draw_attention
from .curves import draw_curves
from .drift import draw_drift
from .nmi import draw_nmi
from .picture import Picture, save_picture, styled
from .prototypes import draw_prototypes
from .run_folder import RunFolder
from .token_map import draw_token_map

__all__ = ['Picture', 'RunFolder', 'draw_attention', 'draw_curves', 'draw_drift', 'draw_nmi', 'draw_prototypes',
           'draw_token_map', 'save_picture', 'styled']
