"""Image sources, augmented views of their images, and loaders that batch those views."""

from understudy.data._workers import lost_workers_explained as lost_workers_explained
from understudy.data.box_views import ObjectViews as ObjectViews
from understudy.data.decoded import DecodedSource as DecodedSource
from understudy.data.loader import Loader as Loader
from understudy.data.source import FileSource as FileSource
from understudy.data.source import MemorySource as MemorySource
from understudy.data.source import Source as Source
from understudy.data.sources import find as find
from understudy.data.sources import load_validation as load_validation
from understudy.data.sources import names as names
from understudy.data.views import CLEAN as CLEAN
from understudy.data.views import FileViews as FileViews
from understudy.data.views import MemoryViews as MemoryViews
from understudy.data.views import Views as Views
