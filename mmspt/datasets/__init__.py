from .birds import CUB, NABirds
from .custom import CustomDataset
from .digits import Digits
from .flowers102 import Flowers102
from .pack_inputs import PackInputs
from .resize import RandomResizedCrop, Resize, ResizeEdge
from .round_down_sampler import RoundDownSampler
from .skip_bad_images import build_without_bad_images
from .stanford_cars import StanfordCars
from .stanford_dogs import StanfordDogs
from .transforms import LoadImageFromFile
from .vtab import VTAB1k

__all__ = ['CUB', 'CustomDataset', 'Digits', 'Flowers102', 'LoadImageFromFile', 'NABirds', 'PackInputs',
           'RandomResizedCrop', 'Resize', 'ResizeEdge', 'RoundDownSampler', 'StanfordCars', 'StanfordDogs', 'VTAB1k',
           'build_without_bad_images']
