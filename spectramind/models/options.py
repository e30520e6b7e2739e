"""Knobs of the analytic predictor and of the V50 network on top of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from spectramind.instruments import N_WAVELENGTHS
from spectramind.options import option

Drift = Literal["product", "shared", "free"]


@dataclass(frozen=True)
class AnalyticOptions:
    """What the predictor learns from planets with known spectra."""

    folds: int = option(5, "Folds of planets for out-of-fold predictions.", ge=2, le=100)
    learning_iterations: int = option(
        60, "Expectation-maximisation steps that learn geometry, limb-darkening and drift scatters.", ge=1, le=5000
    )
    shape_components: int = option(12, "Principal components of the spectral shapes.", ge=1, le=60)
    kernel_widths: tuple[float, ...] = option(
        (1.0, 0.7, 0.5, 0.35),
        "Widths tried for the kernel about each training shape, 1 is one Gaussian; held-out planets decide.",
        gt=0,
        le=1,
    )
    drifts: tuple[Drift, ...] = option(
        ("product", "shared", "free"),
        "Laws tried for the drift: f(t) g(w) of AIRS, of AIRS and FGS1, or any smooth one; held-out planets decide.",
    )
    amplitude_steps: int = option(21, "Grid points of the amplitude of a planet's spectral shape.", ge=3, le=200)


@dataclass(frozen=True)
class SSMOptions:
    """Encoder of the FGS1 sequence."""

    enabled: bool = option(True, "Read the FGS1 sequence; without it the network sees the spectral graph alone.")
    kind: Literal["mamba2", "mamba1", "transformer"] = option("mamba2", "Sequence layer of the encoder.")
    d_model: int = option(256, "Width of a layer.", ge=8, le=4096)
    d_state: int = option(64, "States per channel (Mamba).", ge=1, le=256)
    d_conv: int = option(4, "Steps that a Mamba layer's convolution spans.", ge=2, le=4)
    expand: int = option(2, "Inner width of a layer, in widths.", ge=1, le=8)
    head_dim: int = option(64, "Channels of a head (Mamba-2, transformer).", ge=1, le=256)
    n_layers: int = option(8, "Layers of the sequence.", ge=1, le=64)
    bidirectional: bool = option(True, "Read the sequence in both directions (Mamba).")
    dropout: float = option(0.1, "Dropout of each layer's output.", ge=0, lt=1)
    layer_norm: Literal["rms", "layernorm"] = option("rms", "Normalisation before each layer.")
    proj_out: int = option(256, "Width of the encoding.", ge=1, le=4096)
    export_step_latents: bool = option(False, "Return the encoding of every step with the prediction.")
    chunk: int = option(64, "Steps that plain PyTorch treats as one block; speed alone depends on it.", ge=1, le=4096)
    scan: Literal["auto", "plain", "kernel"] = option(
        "auto", "Mamba-2 scan: plain PyTorch, the kernel of mamba-ssm, or the kernel where a GPU has it."
    )
    checkpoint_steps: int = option(
        8192, "Sequences longer than this keep no layer's inside for the backward pass: it is computed again.", ge=0
    )

    def __post_init__(self) -> None:
        inner = self.d_model if self.kind == "transformer" else self.expand * self.d_model
        if self.kind != "mamba1" and inner % self.head_dim:
            raise ValueError(f"ssm: the inner width {inner} is not a multiple of head_dim {self.head_dim}")


@dataclass(frozen=True)
class EdgeFeatureOptions:
    """Features of a graph edge: wavelength difference, molecules at both ends, detector seam."""

    use: bool = option(True, "Give edge features to the layers that take them.")
    mol_tags: bool = option(True, "Embed the molecules; otherwise their numbers enter.")
    seam_flag: bool = option(True, "Embed the seam flag; otherwise it enters as 0 or 1.")


@dataclass(frozen=True)
class PositionOptions:
    """Encoding of a node's wavelength."""

    use: bool = option(True, "Append the encoded wavelength to the node features.")
    kind: Literal["fourier", "sinusoidal"] = option(
        "fourier", "Octaves of the log wavelength range, or the geometric series of transformers over bins."
    )
    dim: int = option(16, "Numbers per encoded wavelength.", ge=2, le=256)

    def __post_init__(self) -> None:
        if self.dim % 2:
            raise ValueError(f"positional_encoding: dim {self.dim} is odd, sines and cosines come in pairs")


@dataclass(frozen=True)
class GraphOptions:
    """Edges between the 283 bins. Where molecules and seam lie is told by the symbolic rules."""

    wavelength_adjacency: bool = option(True, "Link AIRS bins to their neighbours.")
    molecular_links: bool = option(True, "Link bins of one molecule's windows.")
    detector_seams: bool = option(True, "Link bins on either side of the seam.")
    cross_instrument: bool = option(True, "Link FGS1 to every AIRS bin.")
    neighbours: int = option(2, "Neighbours on either side that a bin is linked to.", ge=1, le=32)
    seam_reach: int = option(4, "Pairs of bins, mirrored at the seam, that are linked.", ge=1, le=32)


@dataclass(frozen=True)
class GNNOptions:
    """Network on the graph of the 283 spectral bins."""

    enabled: bool = option(True, "Pass messages along the graph; without it every bin is seen by itself.")
    node_features: int = option(8, "Numbers per bin that enter.", ge=1, le=256)
    hidden_dim: int = option(256, "Width of a layer.", ge=8, le=4096)
    out_dim: int = option(256, "Width of a node's encoding.", ge=1, le=4096)
    n_layers: int = option(4, "Layers of messages.", ge=1, le=32)
    backend: Literal["gat", "rgcn", "nnconv", "mpnn"] = option("gat", "How messages are formed.")
    heads: int = option(4, "Attention heads (gat).", ge=1, le=64)
    residual: bool = option(True, "Add each layer's input to its output.")
    dropout: float = option(0.1, "Dropout of each layer's output, and of attention.", ge=0, lt=1)
    edge_features: EdgeFeatureOptions = field(default=EdgeFeatureOptions())
    positional_encoding: PositionOptions = field(default=PositionOptions())
    graph: GraphOptions = field(default=GraphOptions())

    def __post_init__(self) -> None:
        if self.hidden_dim % self.heads:
            raise ValueError(f"gnn: hidden_dim {self.hidden_dim} is not a multiple of heads {self.heads}")


@dataclass(frozen=True)
class FusionOptions:
    """How what FGS1 saw reaches the spectral bins."""

    kind: Literal["concat", "cross_attend", "gated"] = option("concat", "Joined, attended to, or mixed by gates.")
    dim: int = option(512, "Width of the result.", ge=1, le=8192)
    hidden: int = option(256, "Width in between.", ge=1, le=8192)
    dropout: float = option(0.1, "Dropout within the fusion.", ge=0, lt=1)
    n_heads: int = option(4, "Attention heads (cross_attend).", ge=1, le=64)
    n_layers: int = option(1, "Attention layers (cross_attend).", ge=1, le=16)
    tokens: int = option(128, "Averages of consecutive steps that bins attend to (cross_attend).", ge=1, le=4096)

    def __post_init__(self) -> None:
        if self.hidden % self.n_heads:
            raise ValueError(f"fusion: hidden {self.hidden} is not a multiple of n_heads {self.n_heads}")


@dataclass(frozen=True)
class MuHeadOptions:
    """Correction of the analytic mean."""

    type: Literal["single", "multiscale"] = option("multiscale", "One field of corrections, or a sum over scales.")
    hidden: tuple[int, ...] = option((512,), "Widths of the hidden layers.", ge=1, le=8192)
    dropout: float = option(0.1, "Dropout after each hidden layer.", ge=0, lt=1)
    scales: tuple[Literal["coarse", "mid", "fine"], ...] = option(
        ("coarse", "mid", "fine"), "Scales of the multiscale type, from wide to narrow."
    )
    aux_losses: bool = option(True, "Return the mean up to each scale, for auxiliary losses (multiscale).")
    directions: int = option(
        16, "Principal directions of the analytic covariance within which the mean may move.", ge=1, le=N_WAVELENGTHS
    )
    reach: float = option(3.0, "Largest correction of a depth, in analytic sigmas.", gt=0, le=100)

    def __post_init__(self) -> None:
        if len(set(self.scales)) != len(self.scales):
            raise ValueError(f"heads.mu: a scale is named twice in {self.scales}")


@dataclass(frozen=True)
class SigmaHeadOptions:
    """Factor on the analytic sigma."""

    type: Literal["flow", "mlp", "quantile"] = option(
        "flow",
        "Affine flow (a scale of the planet times one of the bin), one factor per bin, or quantiles about the mean.",
    )
    hidden: tuple[int, ...] = option((256,), "Widths of the hidden layers.", ge=1, le=8192)
    dropout: float = option(0.1, "Dropout after each hidden layer.", ge=0, lt=1)
    activation: Literal["softplus", "exp"] = option("softplus", "Makes factors positive.")
    sigma_min: float = option(1e-4, "Smallest factor, in analytic sigmas.", gt=0, le=1)
    q_list: tuple[float, ...] = option((0.1, 0.5, 0.9), "Levels of the quantile type.", gt=0, lt=1)
    floor_fgs1: float = option(1e-6, "Smallest sigma of the FGS1 depth.", ge=0, le=1e-6)
    floor_airs: float = option(1e-5, "Smallest sigma of an AIRS depth.", ge=0, le=1e-5)

    def __post_init__(self) -> None:
        if list(self.q_list) != sorted(set(self.q_list)) or 0.5 not in self.q_list or len(self.q_list) < 2:
            raise ValueError(f"heads.sigma: q_list {self.q_list} must ascend, hold 0.5 and one more level")


@dataclass(frozen=True)
class HeadsOptions:
    """What the network predicts."""

    mu: MuHeadOptions = field(default=MuHeadOptions())
    sigma: SigmaHeadOptions = field(default=SigmaHeadOptions())


@dataclass(frozen=True)
class NetworkOptions:
    """The V50 network."""

    ssm: SSMOptions = field(default=SSMOptions())
    gnn: GNNOptions = field(default=GNNOptions())
    fusion: FusionOptions = field(default=FusionOptions())
    heads: HeadsOptions = field(default=HeadsOptions())


@dataclass(frozen=True)
class ModelOptions(NetworkOptions, AnalyticOptions):
    """The analytic predictor, and the network that corrects it."""

    kind: Literal["analytic", "v50"] = option(
        "analytic", "What predicts: the analytic posterior alone, or the V50 network that starts from it."
    )

    @property
    def analytic(self) -> AnalyticOptions:
        """What the analytic predictor depends on."""
        return AnalyticOptions(**{item.name: getattr(self, item.name) for item in fields(AnalyticOptions)})

    @property
    def network(self) -> NetworkOptions:
        """What the network depends on."""
        return NetworkOptions(self.ssm, self.gnn, self.fusion, self.heads)
