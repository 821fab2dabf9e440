"""The experiments' bands (bands.toml), and what the logs of a submission say beside them.

A log is what a student says it is: whoever writes a false one is not found out here. So the numbers
are shown, with the band, and the points are given by a person.
"""

import json
import math
import random
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .holes import HERE, CourseError

BANDS = HERE / "bands.toml"
LARGEST = 5_000_000  # bytes of a log that is read
BUDGET_SECONDS = 600  # of training a run of unit 9; unit9.md says so
# What a file that is no log, or half of one, may raise.
DAMAGED = (OSError, ValueError, LookupError, TypeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class Band:
    """One number of an experiment. The fields are those of bands.toml.

    The band is the mean over our seeds and three standard deviations to each side. Where a number
    hardly depends on the CPU, a run with one of our seeds must have ours, to within `same_seed`.
    """

    unit: int
    what: str  # in words
    commands: tuple[str, ...]  # with SEED for the seed
    run: str  # the folder of the run whose number it is, or a file of what was printed, with SEED
    score: str  # "log: KEY at STEP", "printed: WORDS", or the words of a score in eval.json
    seeds: tuple[int, ...] = ()
    values: tuple[float, ...] = ()  # one per seed, in the order of seeds
    reach: float = 0.0  # the band goes at least so far to each side of the mean
    largest: float = math.inf  # no number can be larger
    same_seed: float = 0.0  # how far from ours a run with our seed may be (0: only the band counts)
    log: str = ""  # the file of docs/results that has the values
    wrong: str = ""  # what a wrong solution gets
    beside: bool = False  # no wrong solution that was tried misses it: a number to compare with

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """The standard deviation over the seeds."""
        squares = sum((value - self.mean) ** 2 for value in self.values)
        return (squares / (len(self.values) - 1)) ** 0.5

    @property
    def is_constant(self) -> bool:
        """Whether all our seeds had the same number: a count, or nothing in it is drawn."""
        return len(set(self.values)) == 1

    @property
    def within(self) -> float:
        """How far from ours a number may be that is compared by itself."""
        return self.same_seed or self.reach

    @property
    def low(self) -> float:
        """The mean less three standard deviations, rounded outwards. No number is below 0."""
        return max(0.0, self._rounded(self.mean - self._half_width(), math.floor))

    @property
    def high(self) -> float:
        """The mean and three standard deviations, rounded outwards, and at most the largest."""
        return min(self.largest, self._rounded(self.mean + self._half_width(), math.ceil))

    def _half_width(self) -> float:
        return max(3 * self.spread, self.reach)

    def _rounded(self, value: float, direction) -> float:
        """To 0.1 where the number is a score in %, else to 0.01."""
        digits = 100 if is_no_score(self.score) else 10
        return direction(round(value * digits, 6)) / digits

    def limits(self, seed: int | None) -> tuple[float, float]:
        """Between which numbers a run with this seed should lie."""
        if self.is_constant:
            ours = self.values[0]
        elif self.same_seed and seed in self.seeds:
            ours = self.values[self.seeds.index(seed)]
        else:
            return self.low, self.high
        low, high = round(ours - self.within, 6), round(ours + self.within, 6)
        return max(0.0, low), min(self.largest, high)

    def in_words(self) -> str:
        """The band as a line for students."""
        if self.beside:
            return f"{self.what}, for comparison. {self.ours_in_words()}."
        if self.is_constant:
            within = f", to within {self.within:g}" if self.within else ""
            return f"{self.what}: {self.values[0]:.9g}{within}, whatever the seed."
        band = f"{self.low:.9g} to {self.high:.9g}"
        if self.same_seed:
            pairs = zip(self.seeds, self.values, strict=True)
            each = ", ".join(f"{value:.9g} ({seed})" for seed, value in pairs)
            return (
                f"{self.what}, on a CPU, to within {self.same_seed:g}; the seed is in brackets: "
                f"{each}. With other seeds {band}, but a wrong solution may lie there, too."
            )
        return f"{self.what}: {band}. {self.ours_in_words()}."

    def ours_in_words(self) -> str:
        values = ", ".join(f"{value:.9g}" for value in self.values)
        return f"Our seeds {', '.join(map(str, self.seeds))} had {values}"


@dataclass(frozen=True)
class Edition:
    """What makes one year's course another than the last: see make.py and measure.py."""

    seed: int = 0  # draws the written questions and their numbers
    bands: Path = BANDS  # where the bands stand, and so the seeds that we have run

    def run_seeds(self, unit: int) -> tuple[int, ...]:
        """The three seeds of a unit's runs: those that the bands have, or three of them."""
        # Where a run is compared with ours of the same seed, we must have that seed.
        listed = sorted(read_bands(unit, self.bands), key=lambda band: not band.same_seed)
        seeds = listed[0].seeds if listed else (0, 1, 2)
        if not self.seed or len(seeds) == 3:
            return seeds[:3]
        return tuple(random.Random(f"runs/{self.seed}/{unit}").sample(seeds, 3))


def read_bands(unit: int | None = None, path: Path = BANDS) -> list[Band]:
    """The bands of a file, or those of one unit in it. CourseError where it is no such file."""
    try:
        rows = tomllib.loads(path.read_text())["band"]
        bands = [band_of(row) for row in rows]
    except FileNotFoundError:
        raise CourseError(f"there is no file {path}; docs.course.measure writes one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(f"{path} is no file of bands: {error!r}") from None
    return [band for band in bands if unit in (None, band.unit)]


def band_of(row: dict) -> Band:
    """The band of a row of bands.toml. ValueError where its numbers are not those of its seeds."""
    lists = {name: tuple(value) for name, value in row.items() if isinstance(value, list)}
    # Where the score is in %, three seeds may be equal by accident: at least two points.
    least = {} if is_no_score(row["score"]) else {"reach": 2.0, "largest": 100.0}
    band = Band(**least | row | lists)
    if not len(band.seeds) == len(band.values) >= 3:
        raise ValueError(
            f"unit {band.unit}, {band.what}: there must be a value for each of 3 seeds"
        )
    return band


def is_no_score(score: str) -> bool:
    """Whether a band's number is none of eval.json: these are in %, and others are as they are."""
    return score.startswith(("log: ", "printed: "))


def found_in(folder: Path, band: Band) -> list[tuple[str, float | None]]:
    """(run, number) of each run of a unit's folder that a band is about, whatever the seed.

    The number is None where the run's log does not have it.
    """
    found = []
    # "runs/lift-SEED": lift, lift-0 and lift-1 are meant, and lift_cos-0 is not.
    name = re.escape(band.run.removeprefix("runs/")).replace(r"\-SEED", r"(-\w+)?")
    for run in sorted(folder.glob("runs/*")):
        if not re.fullmatch(name, run.name):
            continue
        value = None
        try:
            number = read_score(run, band.score)
            if isinstance(number, (int, float)):
                value = float(number)
        except DAMAGED:
            pass
        found.append((run.name, value))
    return found


def read_score(run: Path, score: str) -> float:
    """A number of a run's log.jsonl or eval.json, or of a file of what was printed.

    Scores of eval.json are given in %. Of what was printed it is the first number behind the words.
    """
    if score.startswith("printed: "):
        words = score.removeprefix("printed: ")
        _, _, rest = read_small(run).partition(words)
        return float(re.match(r"[\s|]*(-?[\d.]+)", rest)[1])
    name = "log.jsonl" if score.startswith("log: ") else "eval.json"
    text = read_small(run / name)
    if name == "eval.json":
        node = json.loads(text)
        for word in score.split():
            node = node[int(word) if isinstance(node, list) else word]
        return 100 * node
    key, _, step = score.removeprefix("log: ").partition(" at ")
    entries = [json.loads(line) for line in text.splitlines()]
    entries = [entry for entry in entries if key in entry]
    if step != "the end":
        entries = [entry for entry in entries if entry["step"] == int(step)]
    return entries[-1][key]


def read_small(path: Path) -> str:
    """The text of a log. ValueError where it is none."""
    if path.is_symlink() or path.stat().st_size > LARGEST:
        raise ValueError("no log")
    return path.read_text()


def seed_of(run: Path) -> int | None:
    """The seed that a run's log names, or the name of a file such as adapter-1.log, or None."""
    if run.is_file():
        number = re.search(r"-(\d+)\.\w+$", run.name)
        return int(number[1]) if number else None
    try:
        return read_score(run, "log: config at 0")["seed"]
    except DAMAGED:
        return None


def said_of_logs(folder: Path, unit: int) -> tuple[list[str], bool]:
    """What the logs of one unit say beside the bands, and whether one is missing or outside."""
    lines = []
    outside = False
    for band in read_bands(unit):
        found = found_in(folder, band)
        with_number = [(run, value) for run, value in found if value is not None]
        if not with_number:
            # A run that is not there at all, or was not scored, or did not come so far.
            lacks = "no number in" if is_no_score(band.score) else "eval.py has not scored"
            where = f"{lacks} {', '.join(run for run, _ in found)}" if found else band.run
            lines.append(f"no log of: {band.what} ({where})")
            outside = True
        for run, value in with_number:
            low, high = band.limits(seed_of(folder / "runs" / run))
            inside = low <= value <= high
            verdict = f"{'inside' if inside else 'OUTSIDE'} {low:.9g} to {high:.9g}"
            if band.same_seed and not inside:
                verdict += ", on a CPU"
            if band.beside:
                verdict = f"for comparison. {band.ours_in_words()}"
            else:
                outside |= not inside
            shown = f"{value:.5g}" if value < 10_000 else f"{value:.0f}"
            lines.append(f"{run}: {band.what}: {shown}, {verdict}")
    return lines, outside


def entries(folder: Path, unit: int) -> list[dict]:
    """The same in Gradescope's form, without points."""
    lines, outside = said_of_logs(folder, unit)
    return [
        {
            "number": f"{unit}.log",
            "name": f"logs of the experiment of unit {unit} (no points; your teacher reads them)",
            "score": 0,
            "max_score": 0,
            "status": "failed" if outside else "passed",
            "output": "\n".join(lines),
            "visibility": "visible",
        }
    ]


def leaderboard(folder: Path) -> list[dict]:
    """Unit 9: the mean of the compositional score over the runs own-*, of three seeds at least.

    A run counts if its log says that training took at most BUDGET_SECONDS.
    """
    values = []
    for run in sorted(folder.glob("runs/own-*")):
        try:
            value = read_score(run, "compositional mean")
            if 0 <= value <= 100 and read_score(run, "log: seconds at the end") <= BUDGET_SECONDS:
                values.append(value)
        except DAMAGED:
            continue
    if len(values) < 3:
        return []
    return [{"name": "composition, mean of seeds", "value": round(sum(values) / len(values), 1)}]
