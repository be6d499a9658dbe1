"""The table: every file, in the order of its kinds."""

from __future__ import annotations

from tests.parity.zoo import graphs, heads, keras_files, lite_packages, pickled_modules, timm_files, training_files
from tests.parity.zoo.table import ZooFile

FILES: tuple[ZooFile, ...] = (
    *lite_packages.files(),
    *training_files.files(),
    *heads.files(),
    *pickled_modules.files(),
    *graphs.files(),
    *keras_files.files(),
    *timm_files.files(),
)
assert len({file.id for file in FILES}) == len(FILES)
