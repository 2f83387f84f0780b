"""Writes small results folders with figures and pictures that were made up, for what shows them."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from latentbench import records
from latentbench.records import IMAGES, SAMPLES, Record, ScoreEntry, Status

SIDE = 16  # pixels
STRENGTHS = (1.0, 2.0, 3.0)
FRAMES = 5
GROUPS = ("smile+", "hat+")
EDITS = {"error_zoo1": False, "error_zoo2": False, "target_gain_zoo1": True, "leak_zoo1": False,
         "id_zoo1": True}  # fmt: skip
PATHS = {"path_error_zoo1": False, "path_error_zoo2": False}


class Planted:
    """Writes cells of two benchmarks, `edits` and `paths`, below a results folder.

    Args:
        results: folder.
        images: images per cell.
        kept: of them those that are kept as pictures.
        split: what the ids of images begin with.
        groups: of edits.
    """

    def __init__(
        self, results: Path, images: int = 12, kept: int = 4, split: str = "test",
        groups: tuple[str, ...] = GROUPS,
    ) -> None:  # fmt: skip
        self.results, self.images, self.kept = results, images, kept
        self.split, self.groups = split, groups

    def edits(self, method: str, quality: float = 0.5, **changes) -> Record:
        """Write a cell of edits: three strengths, then the best and the matched one."""
        rng = np.random.default_rng([int(quality * 1000), changes.get("seed", 0)])
        rows = [
            {
                "id": f"{self.split}/{k}", "group": group, "output": s, "strength": strength,
                "headline": s == 3, "effect": s == 4,
                "error_zoo1": (2 - quality) * (1 + 0.2 * abs(strength - 2)) + rng.normal(0, 0.1),
                "error_zoo2": (2 - quality) * (1 + 0.2 * abs(strength - 2)) + rng.normal(0, 0.1),
                "target_gain_zoo1": 0.3 * strength * quality + rng.normal(0, 0.05),
                "leak_zoo1": abs(0.1 * strength * (1 - quality) + rng.normal(0, 0.01)),
                "id_zoo1": 0.9 - 0.1 * strength * (1 - quality) + rng.normal(0, 0.01),
            }
            for k in range(self.images)
            for group in self.groups
            for s, strength in enumerate((*STRENGTHS, 1.5 + 0.1 * self.groups.index(group), 2.5))
        ]  # fmt: skip
        strengths = [(*STRENGTHS, 1.5 + 0.1 * j, 2.5) for j in range(len(self.groups))]
        pictures = [
            {
                "id": f"{self.split}/{k}", "group": group, "source": flat(k, 0), "region": None,
                "reconstruction": flat(k, 1),
                "outputs": [flat(k, s, quality) for s in strengths[j]],
                "truths": [flat(k, 9)] * 5, "strengths": list(strengths[j]), "main": 3,
                "effect": 4, "ends": [],
            }
            for j, group in enumerate(self.groups)
            for k in range(self.kept)
        ]  # fmt: skip
        table = pd.DataFrame(rows)
        scores = {
            name: _score(table[table["effect" if "zoo" in name and "error" not in name else
                                     "headline"]][name], better)
            for name, better in EDITS.items()
        }  # fmt: skip
        return self._write("edits", method, table, pictures, scores, **changes)

    def paths(self, method: str, quality: float = 0.5, **changes) -> Record:
        """Write a cell of paths of a few frames."""
        rng = np.random.default_rng(int(quality * 1000))
        rows = [
            {
                "id": f"{self.split}/{k}", "group": "noise", "output": t, "strength": np.nan,
                "headline": True,
                "path_error_zoo1": 1 - quality * t * (FRAMES - 1 - t) / 4 + rng.normal(0, 0.05),
                "path_error_zoo2": 1 - quality * t * (FRAMES - 1 - t) / 4 + rng.normal(0, 0.05),
            }
            for k in range(self.images)
            for t in range(FRAMES)
        ]  # fmt: skip
        pictures = [
            {
                "id": f"{self.split}/{k}", "group": "noise", "source": None, "region": None,
                "reconstruction": None, "outputs": [flat(k, t, quality) for t in range(FRAMES)],
                "truths": [flat(k, t) for t in range(FRAMES)], "strengths": [], "main": -1,
                "effect": -1, "ends": [flat(k, 0), flat(k, FRAMES - 1)],
            }
            for k in range(self.kept)
        ]  # fmt: skip
        table = pd.DataFrame(rows)
        scores = {name: _score(table[name], better) for name, better in PATHS.items()}
        return self._write("paths", method, table, pictures, scores, **changes)

    def skipped(self, method: str, reason: str) -> Record:
        """Write a cell that was skipped."""
        return self._write("edits", method, None, [], {}, status=Status.SKIPPED, reason=reason)

    def _write(self, benchmark, method, table, pictures, scores, **changes) -> Record:
        names = {"benchmark": benchmark, "method": method, "model": "toy", "dataset": "faces"}
        names |= changes.pop("names", {})
        words = f"{names} {changes.get('seed', 0)} {changes.get('overrides', ())}"
        name = hashlib.sha256(words.encode()).hexdigest()[:16]
        folder = self.results / "cells" / name
        folder.mkdir(parents=True)
        tables = {SAMPLES: table, IMAGES: pd.DataFrame(pictures) if pictures else None}
        files = {k: _parquet(folder / k, frame) for k, frame in tables.items() if frame is not None}
        base = {
            "seed": 0, "config": {"n": self.images}, "scores": scores, "files": files,
            "main_score": next(iter(scores), ""), "asked": self.images, "status": Status.OK,
            "evaluations": {"run": {"forward": 40 * len(method), "backward": 0}},
            "seconds": {"run": 1.5}, "created": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        record = Record(id=name, names=names, **base | changes)
        return records.write(record, folder)


def flat(*shades: float) -> bytes:
    """Return a small WebP picture of one colour."""
    colour = [int(37 + 60 * shade * (k + 1)) % 256 for k, shade in enumerate((*shades, 1, 2)[:3])]
    buffer = io.BytesIO()
    picture = Image.fromarray(np.full((SIDE, SIDE, 3), colour, np.uint8))
    picture.save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def _score(values: pd.Series, better: bool) -> ScoreEntry:
    mean, half = float(values.mean()), 2 * float(values.std()) / len(values) ** 0.5
    at = "effect" if "error" not in str(values.name) else "headline"
    return ScoreEntry(mean, len(values), mean - half, mean + half, higher_is_better=better, at=at)


def _parquet(path: Path, frame: pd.DataFrame) -> str:
    frame.to_parquet(path, index=False)
    return hashlib.sha256(path.read_bytes()).hexdigest()
