"""What is known of the peaks of a target's device: what the target declares, or what was measured here and is kept."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuner.build.store import Store
from tuner.device import Peaks
from tuner.measure.timing import device_lock
from tuner.system.launcher import Launcher
from tuner.target import Target

_LIMIT_S = 120.0
_STAGE, _FILE = "peaks", "peaks.json"
_DISTRUSTED_S = 3600.0  # after which those that something disturbed are measured again


class KnownPeaks:
    """The peaks of one target, as one study knows them."""

    def __init__(self, target: Target, store: Store, launcher: Launcher, log: Path) -> None:
        self._target = target
        self._store = store
        self._launcher = launcher
        self._log = log

    def now(self) -> Peaks | None:
        """Declared, kept, or measured now; None where the device cannot tell. Raises CandidateError."""
        if self._target.peaks is not None:
            return self._target.peaks
        peaks, measured_s = self._kept(None)
        if peaks is not None and not peaks.steady and time.time() - measured_s > _DISTRUSTED_S:
            peaks, _ = self._measured_again(peaks)
        return peaks

    def contradicted(self, peaks: Peaks) -> Peaks | None:
        """Those to believe when a result has beaten these: measured again, unless declared. Raises CandidateError."""
        return peaks if peaks.declared else self._measured_again(peaks)[0]

    def _measured_again(self, before: Peaks) -> tuple[Peaks | None, float]:
        self._store.forget(_STAGE, self._key())
        return self._kept(before)

    def _kept(self, before: Peaks | None) -> tuple[Peaks | None, float]:
        """The peaks and when they were measured, where they are not kept, now: then with what is known from before."""

        def fill(out: Path) -> None:
            hardware, cores = self._target.hardware, self._target.cores
            near = self._launcher.near(hardware.libraries)
            with device_lock(hardware.lock), near.open(self._log) as worker:
                peaks = worker.run_for(_LIMIT_S, hardware.measure_peaks, cores)
            if peaks is not None and before is not None:
                peaks = before.joined(peaks)
            (out / _FILE).write_text(json.dumps({"peaks": peaks and asdict(peaks), "measured_s": time.time()}))

        kept = json.loads((self._store.make(_STAGE, self._key(), fill) / _FILE).read_text())
        return None if kept["peaks"] is None else Peaks(**kept["peaks"]), kept["measured_s"]

    def _key(self) -> dict[str, Any]:
        return {
            "device": self._target.machine,
            "threads": self._target.cores,
            "libraries": self._launcher.versions(self._target.hardware.libraries),
        }
