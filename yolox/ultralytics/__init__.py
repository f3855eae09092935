"""Ultralytics' detectors: pruned here, trained, evaluated and exported by their own program.

Nothing of Ultralytics' code is in this package: it imports theirs, which is an optional extra
under AGPL-3.0. Nothing else of this project imports it but its commands.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
