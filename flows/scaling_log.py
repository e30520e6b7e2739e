"""Which steps of the sigma scaling were kept, what they gained, and how honest the sigmas are that came out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectramind.instruments import INSTRUMENTS
from spectramind.uncertainty.scaling import SigmaScaling


def scaling_log(scaling: SigmaScaling) -> dict[str, Any]:
    """By group of bins: temperature, exponent, the steps kept, and what each step tried gained."""
    return {
        name: {
            "temperature": group.temperature,
            "exponent": group.exponent,
            "kept": list(group.kept),
            "gains": dict(group.gains),
        }
        for name, group in scaling.groups.items()
    }


def scaling_lines(scaling: SigmaScaling) -> list[str]:
    """The same for the terminal, one line per step."""
    lines = []
    for name, group in scaling.groups.items():
        lines.append(f"{name}: temperature [bold]{group.temperature:.3f}[/], exponent {group.exponent:.3f}")
        for step, gain in group.gains.items():
            verdict = "kept" if step in group.kept else "dropped"
            lines.append(f"  {step:<12}{gain:+.5f} on held-out planets: {verdict}")
        if not group.gains:
            lines.append("  no step tried: sigma stays as it is")
    return lines


def honesty_lines(statistics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of held-out planets, one line per instrument, from `spectra_statistics`."""
    return [
        f"{instrument.name}: errors / sigma have standard deviation [bold]{found['z_std']:.3f}[/] (1 is honest), "
        f"calibration gap {found['calibration_gap']:.1%} (mean over levels)"
        for instrument in INSTRUMENTS
        for found in (statistics[instrument.name],)
    ]
