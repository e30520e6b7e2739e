"""SpectraMind V50: raw Ariel detector frames in, exoplanet transmission spectra with honest uncertainties out."""

__version__ = "0.50.0"
