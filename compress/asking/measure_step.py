"""The last step of a teacher behind HTTP: its answers to held-out texts, and what they took to get."""

from __future__ import annotations

import numpy as np

from compress.datasets.data import DATA, read_dataset
from compress.datasets.recorded import RECORDED, read_recorded
from compress.measurement.measure_step import HELD_OUT, LOGITS
from compress.steps import Context, Result
from router.tune.calibrate import fit_temperature


def measure_asked(context: Context) -> Result:
    """Calibrate recorded answers on validation, and take latency and price from how they came.

    Without labels the answers are taken at their word: the temperature is 1.
    """
    data = read_dataset(context.inputs["data"].file(DATA))
    held = data.of(*HELD_OUT)
    logits = read_recorded(context.inputs["artifact"].file(RECORDED)).of(held.texts)
    np.save(context.folder / LOGITS, logits)
    temperature = 1.0
    if context.recipe.data.label is not None:
        rows = held.rows("validation")
        temperature = fit_temperature(logits[rows], held.targets[rows])
    asked = context.inputs["artifact"].result
    return {
        "temperature": temperature,
        "latency": asked["latency"],
        "cpu_seconds_per_1k": None,
        "usd_per_1k": asked["usd_per_1k"],
        "energy_wh_per_1k": None,
        "energy_provenance": "none",
        "peak_memory_bytes": None,
    }
