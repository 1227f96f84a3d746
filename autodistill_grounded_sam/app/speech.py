"""What was said, as text: any speech recognition model of transformers, loaded when the first words are spoken."""

from __future__ import annotations

from functools import cached_property
from math import gcd
from typing import Any

import numpy as np

from autodistill_grounded_sam.errors import WeightsError
from autodistill_grounded_sam.loading import quiet_loading, usable_device


class Listener:
    """Called with (samples a second, int16 samples (n,) or (n, channels)), gives what was said."""

    def __init__(self, model: str, device: str = "auto", offline: bool = False) -> None:
        self._name, self._device, self._offline = model, device, offline

    def __call__(self, sound: tuple[int, Any]) -> str:
        rate, samples = sound
        wanted = int(self._recognise.feature_extractor.sampling_rate)
        heard = self._recognise({"raw": _mono(np.asarray(samples), rate, wanted), "sampling_rate": wanted})
        return str(heard["text"]).strip()

    @cached_property
    def _recognise(self) -> Any:
        from transformers import pipeline

        try:
            with quiet_loading():
                return pipeline(
                    "automatic-speech-recognition", model=self._name, device=usable_device(self._device), trust_remote_code=False,
                    local_files_only=self._offline,
                )  # fmt: skip
        except (OSError, ValueError, KeyError) as error:
            raise WeightsError(
                f"no speech recognition model of transformers could be loaded by the name {self._name!r} ({error}); "
                "give --speech a hub id such as openai/whisper-base, or a folder"
            ) from error


def _mono(samples: Any, rate: int, wanted: int) -> Any:
    """Samples (n,) float32 in -1..1 at the rate that the model wants."""
    from scipy.signal import resample_poly

    scale = float(np.iinfo(samples.dtype).max) if np.issubdtype(samples.dtype, np.integer) else 1.0
    one = (samples.mean(axis=1) if samples.ndim > 1 else samples).astype(np.float32) / np.float32(scale)
    if rate == wanted:
        return one
    step = gcd(rate, wanted)
    return resample_poly(one, wanted // step, rate // step).astype(np.float32)
