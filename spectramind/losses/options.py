"""Knobs of the training loss: the Gaussian likelihood and the symbolic rules beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from spectramind.instruments import N_WAVELENGTHS
from spectramind.options import option

Stage = Literal["mae", "contrastive", "supervised"]
"""Stages of the curriculum: masked auto-encoding, contrastive alignment, supervised fit of mean and sigma."""

Mode = Literal["soft", "hard"]
Family = Literal["molecular_fingerprint", "gravitational_lensing", "photonic_alignment", "radiative_transfer"]

Window = tuple[int, int]

_WEIGHT = "Weight of this rule in the loss, in score per unit of the rule's penalty."
_SCALE = "Size, in ppm of depth, at which the soft penalty is 1."
_LAST = N_WAVELENGTHS - 1
_FEWEST = 4
"""Bins of the shortest window: a level, a slope and a template leave one degree of freedom."""


@dataclass(frozen=True)
class LossOptions:
    """The likelihood of the official score, which is always part of the loss, and its balance with the rules."""

    gll_weight: float = option(1.0, "Weight of the Gaussian log likelihood, which is always on.", gt=0, le=1000)
    clip_above: float | None = option(
        3.0,
        "Loss of one bin (0 ideal, 1 as good as the train mean) above which it saturates, at twice this value at most, "
        "so that wrong labels and failed fits do not rule the gradient; null means never.",
        gt=0,
        le=1e6,
    )
    symbolic_weight_scale: float = option(1.0, "Factor on the weights of all symbolic rules.", ge=0, le=1000)


@dataclass(frozen=True)
class RuleOptions:
    """What every symbolic rule has."""

    enabled: bool = option(True, "Whether the rule is part of the loss.")
    weight: float = option(0.05, _WEIGHT, ge=0, le=1000)
    mode: Mode = option(
        "soft",
        "soft: a quadratic penalty; hard: none within the rule's scale or bounds and a linear one beyond, which a "
        "large weight turns into a constraint.",
    )
    stages: tuple[Stage, ...] = option(("supervised",), "Stages of the curriculum in which the rule counts.")


@dataclass(frozen=True)
class SmoothnessOptions(RuleOptions):
    """Second differences along wavelength."""

    weight: float = option(0.1, _WEIGHT, ge=0, le=1000)
    scale_ppm: float = option(40.0, _SCALE, gt=0, le=1e6)
    window: int = option(2, "Distance, in bins, of the neighbours of a second difference.", ge=1, le=100)
    mask_strong_lines: bool = option(True, "Leave out bins in which the analytic spectrum itself bends strongly.")
    cutoff: float = option(50.0, "Second difference of the analytic spectrum, in ppm, of a strong line.", gt=0, le=1e6)


@dataclass(frozen=True)
class FftOptions(RuleOptions):
    """Power at high frequencies along wavelength."""

    scale_ppm: float = option(10.0, _SCALE, gt=0, le=1e6)
    cutoff_freq: float = option(
        40.0,
        "Highest free frequency, in cycles over the AIRS bins; 141 is the Nyquist frequency.",
        ge=0,
        lt=141,
    )


@dataclass(frozen=True)
class TotalVariationOptions(RuleOptions):
    """First differences along wavelength."""

    enabled: bool = option(False, "Whether the rule is part of the loss. It flattens real bands as well.")
    scale_ppm: float = option(10.0, "Size, in ppm of depth, at which the penalty is 1.", gt=0, le=1e6)


@dataclass(frozen=True)
class NonnegativityOptions(RuleOptions):
    """Depths below zero."""

    scale_ppm: float = option(100.0, _SCALE, gt=0, le=1e6)
    power: float = option(2.0, "Power of the soft penalty.", ge=1, le=8)


@dataclass(frozen=True)
class AsymmetryOptions(RuleOptions):
    """Corrections that shift a band along wavelength."""

    scale_ppm: float = option(20.0, _SCALE, gt=0, le=1e6)


@dataclass(frozen=True)
class MolecularCoherenceOptions(RuleOptions):
    """The shape of the spectrum in each molecule's windows."""

    weight: float = option(0.1, _WEIGHT, ge=0, le=1000)
    scale_ppm: float = option(
        20.0, "Size, in ppm of depth, at which the penalty is 1, or below which a window counts as flat.", gt=0, le=1e6
    )
    use_templates: bool = option(True, "Compare with the molecule's band template; otherwise with a parabola.")
    normalize_within_window: bool = option(
        True, "Take the misfit relative to the spectrum's own contrast in the window, so that weak bands count as well."
    )


@dataclass(frozen=True)
class SeamContinuityOptions(RuleOptions):
    """A step in the spectrum at one place."""

    scale_ppm: float = option(10.0, _SCALE, gt=0, le=1e6)
    seam_index: int = option(178, "First bin to the right of the seam.", ge=3, le=_LAST - 1)


@dataclass(frozen=True)
class RatioEnvelopesOptions(RuleOptions):
    """Ratios of the contrasts of two molecules' windows."""

    scale_ppm: float = option(100.0, _SCALE, gt=0, le=1e6)
    ch4_h2o: tuple[float, float] = option((0.2, 3.0), "Lowest and highest ratio of CH4 to H2O contrast.", ge=0, le=1e3)
    co2_h2o: tuple[float, float] = option((0.1, 2.5), "Lowest and highest ratio of CO2 to H2O contrast.", ge=0, le=1e3)

    def __post_init__(self) -> None:
        for name in ("ch4_h2o", "co2_h2o"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: expected the lowest ratio first, found [{low}, {high}]")


@dataclass(frozen=True)
class QuantileMonotonicityOptions(RuleOptions):
    """Predicted quantiles that cross."""

    scale_ppm: float = option(10.0, _SCALE, gt=0, le=1e6)


@dataclass(frozen=True)
class SigmaBoundsOptions(RuleOptions):
    """Sigmas that cannot be honest. The penalty's unit is one e-fold beyond the bound."""

    min_fgs1: float = option(1e-6, "Smallest sigma of the FGS1 depth.", gt=0, le=1e-6)
    min_airs: float = option(1e-5, "Smallest sigma of an AIRS depth.", gt=0, le=1e-5)
    max_sigma: float = option(0.01, "Largest sigma of any depth.", gt=1e-5, le=1)


@dataclass(frozen=True)
class RuleFamily(RuleOptions):
    """One entry of the list of rule families; which one is told by `name`."""

    scale_ppm: float = option(100.0, "Unit of the rule, in ppm of depth; see docs/symbolic_rules.md.", gt=0, le=1e6)
    name: Family = option("molecular_fingerprint", "The rule family that this entry configures.")


@dataclass(frozen=True)
class MoleculeWindows:
    """Bins of the molecules' bands: inclusive ranges of the 283 bins in ascending wavelength. Bin 0 is FGS1 and
    belongs to none."""

    h2o: tuple[Window, ...] = option(((40, 85), (210, 240)), "Windows of H2O: first and last bin.", ge=1, le=_LAST)
    co2: tuple[Window, ...] = option(((95, 130), (245, 265)), "Windows of CO2: first and last bin.", ge=1, le=_LAST)
    ch4: tuple[Window, ...] = option(((135, 175), (270, 282)), "Windows of CH4: first and last bin.", ge=1, le=_LAST)

    def __post_init__(self) -> None:
        for name, windows in self.by_molecule.items():
            for first, last in windows:
                if not (first >= 1 and first + _FEWEST - 1 <= last <= _LAST):
                    raise ValueError(
                        f"{name}: expected windows of {_FEWEST} or more bins within 1..{_LAST}, found [{first}, {last}]"
                    )

    @property
    def by_molecule(self) -> dict[str, tuple[Window, ...]]:
        return {"h2o": self.h2o, "co2": self.co2, "ch4": self.ch4}


@dataclass(frozen=True)
class SymbolicOptions:
    """The symbolic rules. Each can be switched off, weighted, made hard and tied to stages of the curriculum."""

    enabled: bool = option(True, "Whether any symbolic rule is part of the loss.")
    smoothness: SmoothnessOptions = field(default=SmoothnessOptions())
    fft: FftOptions = field(default=FftOptions())
    total_variation: TotalVariationOptions = field(default=TotalVariationOptions())
    nonnegativity: NonnegativityOptions = field(default=NonnegativityOptions())
    asymmetry: AsymmetryOptions = field(default=AsymmetryOptions())
    molecular_coherence: MolecularCoherenceOptions = field(default=MolecularCoherenceOptions())
    seam_continuity: SeamContinuityOptions = field(default=SeamContinuityOptions())
    ratio_envelopes: RatioEnvelopesOptions = field(default=RatioEnvelopesOptions())
    quantile_monotonicity: QuantileMonotonicityOptions = field(default=QuantileMonotonicityOptions())
    sigma_bounds: SigmaBoundsOptions = field(default=SigmaBoundsOptions())
    rules: tuple[RuleFamily, ...] = option(
        (
            RuleFamily(name="molecular_fingerprint", weight=0.1),
            RuleFamily(name="gravitational_lensing", enabled=False),
            RuleFamily(name="photonic_alignment", scale_ppm=500.0),
            RuleFamily(name="radiative_transfer"),
        ),
        "Rule families, each at most once; one that is not listed does not count.",
    )
    windows: MoleculeWindows = field(default=MoleculeWindows())
    retraining_strength: float = option(
        0.0,
        "Extra weight, in the supervised phase, of the train planet whose analytic spectrum breaks the rules most; the "
        "others follow by rank, and 0 weighs all alike.",
        ge=0,
        le=100,
    )

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError(f"rules: expected each rule family at most once, found {', '.join(names)}")

    @property
    def by_name(self) -> dict[str, RuleOptions]:
        """The options of every rule, in the order in which the loss adds them up."""
        named = {name: value for name, value in vars(self).items() if isinstance(value, RuleOptions)}
        return named | {rule.name: rule for rule in self.rules}

    def active(self, stage: Stage) -> dict[str, RuleOptions]:
        """The rules that count in `stage`: enabled, with a weight, and tied to it."""
        if not self.enabled:
            return {}
        rules = self.by_name.items()
        return {name: rule for name, rule in rules if rule.enabled and rule.weight > 0 and stage in rule.stages}
