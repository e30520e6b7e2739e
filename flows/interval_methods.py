"""Ways from errors of held-out planets to intervals of new ones. Own ones join by `register`, or by an entry point in
the group "spectramind.intervals" that names such a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from settings.tree import Settings
from spectramind.corel.options import CorelOptions
from spectramind.errors import SettingsError
from spectramind.losses.options import MoleculeWindows
from spectramind.provenance.digests import code_digest, file_digest
from spectramind.types import Floats
from spectramind.uncertainty.conformal import ConformalIntervals, fit_conformal, molecule_regions

if TYPE_CHECKING:
    from spectramind.corel.intervals import Corel, CorelReport, Split

ENTRY_POINTS = "spectramind.intervals"


@dataclass(frozen=True)
class HeldOut:
    """Predictions of planets by models that have not seen them: `mean`, scaled `sigma` and `truth` (planets, bins), one
    row per planet, `evidence` of the fits (instruments, planets, numbers); the `levels` wanted; what else a method may
    read."""

    mean: Floats
    sigma: Floats
    truth: Floats
    evidence: Floats | None
    levels: tuple[float, ...]
    wavelengths_um: Floats
    windows: MoleculeWindows
    seam_index: int
    corel: CorelOptions
    seed: int


class Limits(Protocol):
    """Lower and upper limits (levels, planets, bins) from mean, sigma (planets, bins) and evidence of new planets: of
    each bin, or with `band` of all bins of a planet at once."""

    def __call__(
        self, mean: Floats, sigma: Floats, evidence: Floats | None, *, band: bool
    ) -> tuple[Floats, Floats]: ...


@dataclass(frozen=True)
class Intervals:
    """What a method has made: `limits` at `levels`, calibrated on `n_planets`; `steps`, in order, and whether each was
    kept; `lines` for people and `numbers` for the metrics."""

    levels: tuple[float, ...]
    limits: Limits
    n_planets: int
    steps: Mapping[str, bool]
    lines: Sequence[str] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)


Method = Callable[[HeldOut], Intervals]

_registered: dict[str, Method] = {}


def register(name: str, method: Method) -> None:
    """Let `intervals.method` name this method in all runs of this process; one of the same name is replaced."""
    _registered[name] = method


def interval_method(name: str) -> Method:
    """The method of this name. Raises SettingsError if there is none, or its package cannot be imported."""
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    known: dict[str, Method | EntryPoint] = {**OWN, **installed, **_registered}
    if name not in known:
        raise SettingsError(f"intervals.method: expected one of {', '.join(sorted(known))}, found {name!r}")
    found = known[name]
    if not isinstance(found, EntryPoint):
        return found
    try:
        method: Method = found.load()
    except Exception as error:  # a package from elsewhere may raise anything
        raise SettingsError(f"intervals.method: {name} cannot be imported ({error})") from error
    return method


def method_identity(settings: Settings) -> dict[str, Any]:
    """What the intervals of a run depend on beside the predictions: the method, its source, and what it may read."""
    name = settings.intervals.method
    method = interval_method(name)
    if name == "split" and method is split:  # reads nothing else
        return {"method": name}
    source = inspect.getsourcefile(inspect.unwrap(method))
    return {
        "method": name,
        "source": None if source is None else file_digest(Path(source)),
        "code": code_digest("spectramind.corel") if method is corel else None,
        "windows": asdict(settings.symbolic.windows),
        "seam_index": settings.symbolic.seam_continuity.seam_index,
        "corel": asdict(settings.corel),
        "seed": settings.runtime.seed,
    }


def split(held_out: HeldOut) -> Intervals:
    """A conformal quantile for each bin."""
    return _conformal(fit_conformal(held_out.mean, held_out.sigma, held_out.truth, held_out.levels), {})


def region(held_out: HeldOut) -> Intervals:
    """A conformal quantile for each molecule's windows, FGS1 and the continuum."""
    regions = molecule_regions(held_out.windows.by_molecule, held_out.mean.shape[1])
    parts = list(regions.values())
    fitted = fit_conformal(held_out.mean, held_out.sigma, held_out.truth, held_out.levels, parts)
    factors = {name: fitted.factor[:, bins[0]].tolist() for name, bins in regions.items()}
    return _conformal(fitted, {"factor": factors})


def _conformal(fitted: ConformalIntervals, numbers: Mapping[str, Any]) -> Intervals:
    def limits(mean: Floats, sigma: Floats, evidence: Floats | None, *, band: bool) -> tuple[Floats, Floats]:
        return fitted.limits(mean, sigma, band=band)

    return Intervals(fitted.levels, limits, fitted.n_planets, {"conformal": True}, numbers=numbers)


def corel(held_out: HeldOut) -> Intervals:
    """Quantiles of the graph network about the mean, made conformal on planets that it has not seen."""
    fitted, report, _ = fit_network(held_out)

    def limits(mean: Floats, sigma: Floats, evidence: Floats | None, *, band: bool) -> tuple[Floats, Floats]:
        return fitted.limits(mean, sigma, evidence, band=band)

    steps = {"corel": fitted.weight > 0}
    if report.instance_gain is not None:
        steps["instance"] = fitted.response is not None
    lines = network_lines(report, fitted, held_out.corel.target)
    steps["conformal"] = True
    return Intervals(fitted.levels, limits, report.n_conformal, steps, lines, report.to_json())


OWN: Mapping[str, Method] = {"split": split, "region": region, "corel": corel}


def fit_network(held_out: HeldOut) -> tuple[Corel, CorelReport, Split]:
    """The conformal graph network of these planets, what its checking planets say, and which planets did what."""
    from spectramind.corel.intervals import fit_corel
    from spectramind.models.options import GraphOptions
    from spectramind.models.spectral_graph import spectral_graph

    graph = spectral_graph(held_out.wavelengths_um, held_out.windows.by_molecule, held_out.seam_index, GraphOptions())
    known = held_out.mean, held_out.sigma, held_out.truth, held_out.evidence
    return fit_corel(*known, graph, held_out.corel, held_out.seed)


def network_lines(report: CorelReport, fitted: Corel, target: float) -> list[str]:
    """What came out, for people: the steps in their order, then the levels, the target first."""
    what = (
        f"corel: {report.n_train} planets trained the network, weight {report.weight:g}"
        if fitted.network
        else "corel: too few planets for a network"
    )
    lines = [what]
    if report.instance_gain is not None:
        verdict = "dropped" if fitted.response is None else "kept"
        lines.append(f"instance: {report.instance_gain:+.5f} nats per bin on planets that choose, {verdict}")
    lines.append(f"conformal: on {report.n_conformal} planets, {report.n_check} check:")
    order = sorted(range(len(report.levels)), key=lambda number: report.levels[number] != target)
    for number in order:
        observed = report.coverage[number]
        lines.append(
            f"  {report.levels[number]:.0%}  observed {observed.mean():.1%}, bins {observed.min():.0%} to "
            f"{observed.max():.0%} (limits {report.beta_low[number]:.0%} to {report.beta_high[number]:.0%}), all bins "
            f"at once {report.band_coverage[number]:.0%}; width {report.width_ppm[number]:.0f} ppm, split-conformal "
            f"alone {report.plain_width_ppm[number]:.0f} ppm"
        )
    return lines
