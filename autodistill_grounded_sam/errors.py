"""One small tree of errors. Each message says what was expected, what came, and what to do.

Every error also inherits the builtin that fits, so `except ValueError` and `except GroundedSamError` both work.
"""

from __future__ import annotations


class GroundedSamError(Exception):
    """Anything this package raises on purpose."""


class RecordError(GroundedSamError, ValueError):
    """A record was built from arrays that do not fit one another (a fault of a model adapter or plugin)."""


class ConfigError(GroundedSamError, ValueError):
    """A setting is unknown or out of range."""


class OntologyError(GroundedSamError, ValueError):
    """An ontology cannot be read, names a class twice, or holds a prompt that cannot be asked."""


class ImageReadError(GroundedSamError, OSError):
    """One image cannot be read. `reason` is a short word for counting (`truncated`, `not_an_image`, ...)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class NoImagesError(GroundedSamError, FileNotFoundError):
    """A folder holds nothing that can be labelled."""


class WeightsError(GroundedSamError, FileNotFoundError):
    """Weights are missing, damaged or of another model."""


class MissingExtraError(GroundedSamError, ImportError):
    """Something asked for needs an optional dependency; the message holds the pip command."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency; install it with: pip install 'autodistill-grounded-sam[{extra}]'")
        self.extra = extra


class PluginError(GroundedSamError, LookupError):
    """A name stands for no plugin, for two, or for one that does not load."""


class StoreError(GroundedSamError, RuntimeError):
    """The run folder is in use, damaged, or belongs to another set of models, prompts and image settings."""


class WrongRunError(StoreError):
    """What was asked does not fit the run folder: there is no run, or it is one of other images, models or prompts."""


class ExportError(GroundedSamError, RuntimeError):
    """A dataset could not be written, or does not read back as what was written."""


class WrongPlaceError(ExportError):
    """A dataset must not be written there: something that is not ours, or that a person changed, would be lost."""


class DatasetError(GroundedSamError, ValueError):
    """A dataset or a reference file given by the user is not in the form it claims."""


class UploadError(GroundedSamError, RuntimeError):
    """An upload failed for good after its retries."""
