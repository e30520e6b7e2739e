"""Settings of the simulator."""

from __future__ import annotations

from dataclasses import dataclass

from spectramind.options import option


@dataclass(frozen=True)
class SimulationOptions:
    """What `simulate_dataset` makes. Defaults follow the 2025 edition of the challenge at full size."""

    train_planets: int = option(40, "planets in the train split", ge=1, le=100_000)
    test_planets: int = option(20, "planets in the test split", ge=1, le=100_000)
    thin: int = option(
        1, "keep one CDS pair in F and rescale the detector constants so that the information stays", ge=1, le=200
    )
    fgs1_thin: int = option(0, "the same factor for FGS1 alone; 0 takes `thin`", ge=0, le=2000)
    airs_frames: int = option(11_250, "AIRS-CH0 frames per visit before thinning (two per CDS pair)", ge=4, le=100_000)
    fgs1_frames: int = option(135_000, "FGS1 frames per visit before thinning (two per CDS pair)", ge=4, le=1_000_000)
    window_h: float = option(7.5, "length of a visit in hours", ge=2.0, le=24.0)
    two_visit_fraction: float = option(0.1, "share of planets that are observed twice", ge=0.0, le=1.0)
    cut_fraction: float = option(
        0.01, "share of visits whose transit begins or ends outside the window", ge=0.0, le=1.0
    )
    mid_transit_scatter_h: float = option(
        0.4, "standard deviation of mid-transit about the middle of the window, hours", ge=0.0, le=2.0
    )
    fgs1_clock_offset_h: float = option(
        0.0, "hours added to mid-transit in the FGS1 file only (-1.1 is seen in one real planet)", ge=-3.0, le=3.0
    )
    gain: float = option(0.4369, "ADC gain in counts per electron, before thinning", gt=0.0, le=10.0)
    offset: float = option(-1000.0, "ADC offset in electrons, before thinning", ge=-50_000.0, le=0.0)
    cosmic_ray_rate: float = option(1e-6, "cosmic-ray hits per pixel and second", ge=0.0, le=1e-2)
    fgs1_jitter_px: float = option(0.11, "rms pointing jitter on FGS1 per axis, pixels", ge=0.0, le=0.3)
    airs_jitter_px: float = option(0.013, "rms motion of the AIRS-CH0 trace per axis, pixels", ge=0.0, le=0.3)
    drift_min: float = option(1e-4, "smallest peak amplitude of the flux drift", ge=0.0, le=0.1)
    drift_max: float = option(2e-3, "largest peak amplitude of the flux drift", ge=0.0, le=0.1)
    foreground: float = option(
        5e-4,
        "median foreground of one row, as a share of the reference star's light in a column of 50,000 electrons",
        ge=0.0,
        le=0.1,
    )
    brightness_scatter: float = option(
        0.2, "standard deviation of the natural logarithm of the stars' brightness", ge=0.0, le=1.0
    )
    geometry_scatter: float = option(
        0.0075,
        "scatter between the star table and the true orbit: relative in sma, in stellar radii in impact parameter",
        ge=0.0,
        le=0.2,
    )
    spectra_file: str = option(
        "", "CSV with columns wl_1..wl_283 whose spectral shapes replace the built-in atmospheres; empty: built-in"
    )
    detector_from: tuple[str, ...] = option(
        (), "folders holding {AIRS-CH0,FGS1}_calibration_<k>/*.parquet to use instead of drawn detectors"
    )

    def thinning(self, instrument_name: str) -> int:
        """The factor F of one instrument."""
        return self.fgs1_thin or self.thin if instrument_name == "FGS1" else self.thin

    def pairs(self, instrument_name: str) -> int:
        """CDS pairs of one visit that remain after thinning."""
        frames = self.fgs1_frames if instrument_name == "FGS1" else self.airs_frames
        return frames // 2 // self.thinning(instrument_name)
