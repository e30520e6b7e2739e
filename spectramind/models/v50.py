"""The V50 network: what the FGS1 sequence and the spectral graph know beyond the transit fit.

It corrects the analytic posterior of a planet (`models.analytic`): an untrained network returns it unchanged.

Axis letters: P planets, V visits (one or two of each planet), T steps, N = 283 bins, R principal directions.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from spectramind.errors import InputError
from spectramind.instruments import N_WAVELENGTHS
from spectramind.models import fgs1_encoder
from spectramind.models.fgs1_encoder import FGS1_CHANNELS, FGS1Encoder
from spectramind.models.fusion import Fusion
from spectramind.models.gnn import AIRSGraphNetwork
from spectramind.models.heads import MuHead, SigmaHead, correction, sigma_floors
from spectramind.models.options import NetworkOptions
from spectramind.models.spectral_graph import SpectralGraph
from spectramind.options import from_dict
from spectramind.types import Floats

FORMAT = "spectramind-v50-1"
STAR_FEATURES = ("Rs", "Ms", "Ts", "Mp", "e", "P", "sma", "i")


class V50Inputs(NamedTuple):
    """A batch of planets.

    `fgs1` (V, T, 6) the channels of `FGS1_CHANNELS`, of order one; a visit's first `n_steps` (V,) steps count, the rest
    is padding; `planet_of_visit` (V,) the place of the visit's planet in the batch; `nodes` (P, N, F) features of the
    bins, the analytic estimates among them, of order one; `star` (P, 8) the parameters of `STAR_FEATURES`, of order
    one; `mean`, `sigma` (P, N) the analytic posterior in transit depth, float32 or float64; `directions` (P, N, R) its
    covariance, as `principal_directions` gives it.
    """

    fgs1: Tensor
    n_steps: Tensor
    planet_of_visit: Tensor
    nodes: Tensor
    star: Tensor
    mean: Tensor
    sigma: Tensor
    directions: Tensor

    def to(self, device: torch.device | str) -> V50Inputs:
        return V50Inputs(*(tensor.to(device, non_blocking=True) for tensor in self))

    def check(self, node_features: int) -> None:
        """Raises InputError where shapes disagree or a visit has no steps or more than there are."""
        planets, visits, longest = self.mean.shape[0], self.fgs1.shape[0], self.fgs1.shape[1]
        expected = {
            "fgs1": (visits, longest, len(FGS1_CHANNELS)),
            "n_steps": (visits,),
            "planet_of_visit": (visits,),
            "nodes": (planets, N_WAVELENGTHS, node_features),
            "star": (planets, len(STAR_FEATURES)),
            "mean": (planets, N_WAVELENGTHS),
            "sigma": (planets, N_WAVELENGTHS),
            "directions": (planets, N_WAVELENGTHS, self.directions.shape[-1]),
        }
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise InputError(f"network input {name}", f"shape {shape}", f"{found}", "Build it as V50Inputs tells.")
        if visits and not 1 <= int(self.n_steps.min()) <= int(self.n_steps.max()) <= longest:
            raise InputError(
                "network input n_steps", f"1 to {longest}", str(self.n_steps.tolist()), "Leave visits out."
            )


@dataclass(frozen=True)
class V50Output:
    """`mean`, `sigma` (P, N) in transit depth; `scales` the mean up to each scale but the last, each (P, N), for
    auxiliary losses; `quantiles` (P, levels, N) ascending, or None; `attention` of the graph's layers, each (P, E,
    heads); `node_latents` (P, N, dim); `step_latents` (V, T, S) or None."""

    mean: Tensor
    sigma: Tensor
    scales: tuple[Tensor, ...]
    quantiles: Tensor | None
    attention: tuple[Tensor, ...]
    node_latents: Tensor
    step_latents: Tensor | None

    def tempered(self, temperature: float) -> V50Output:
        """Sigma, and the quantiles' distances from the mean, times `temperature`; the mean stays."""
        quantiles = self.quantiles
        if quantiles is not None:
            quantiles = self.mean[:, None] + temperature * (quantiles - self.mean[:, None])
        return V50Output(
            self.mean,
            temperature * self.sigma,
            self.scales,
            quantiles,
            self.attention,
            self.node_latents,
            self.step_latents,
        )


class V50(nn.Module):
    """`V50Inputs` to `V50Output`. The graph is part of the model and of its state."""

    floors: Tensor

    def __init__(self, options: NetworkOptions, graph: SpectralGraph) -> None:
        super().__init__()
        self.options = options
        self.fgs1 = FGS1Encoder(options.ssm) if options.ssm.enabled else None
        self.airs = AIRSGraphNetwork(options.gnn, graph, len(STAR_FEATURES))
        self.fusion = Fusion(options.fusion, options.gnn.out_dim, options.ssm.proj_out)
        self.mu = MuHead(options.heads.mu, options.fusion.dim, graph.position)
        self.sigma = SigmaHead(options.heads.sigma, options.fusion.dim)
        self.register_buffer("floors", sigma_floors(options.heads.sigma), persistent=False)

    def forward(self, inputs: V50Inputs) -> V50Output:
        """Raises InputError if the inputs' shapes disagree."""
        inputs.check(self.options.gnn.node_features)
        steps = self._steps(inputs)
        summary = fgs1_encoder.summary(steps, inputs.n_steps)
        tokens = summary[:, None]
        if self.options.fusion.kind == "cross_attend":
            tokens = fgs1_encoder.tokens(steps, inputs.n_steps, self.options.fusion.tokens)
        nodes, attention = self.airs(inputs.nodes, inputs.star)
        fused = self.fusion(nodes, summary, tokens, inputs.planet_of_visit)
        fields, (factor, offsets) = self.mu(fused), self.sigma(fused)

        # Depths and their corrections differ by five orders of magnitude: no half precision from here on.
        with torch.autocast(fused.device.type, enabled=False):
            dtype, reach = inputs.mean.dtype, self.options.heads.mu.reach
            sums = torch.stack(fields).to(dtype).cumsum(0)
            means = [inputs.mean + correction(a, inputs.directions.to(dtype), inputs.sigma, reach) for a in sums]
            sigma = torch.maximum(inputs.sigma * factor.to(dtype), self.floors.to(dtype))
            quantiles = None
            if offsets is not None:
                quantiles = means[-1][:, None] + inputs.sigma[:, None] * offsets.to(dtype)
        return V50Output(
            mean=means[-1],
            sigma=sigma,
            scales=tuple(means[:-1]) if self.options.heads.mu.aux_losses else (),
            quantiles=quantiles,
            attention=attention,
            node_latents=fused,
            step_latents=steps if self.options.ssm.export_step_latents else None,
        )

    def _steps(self, inputs: V50Inputs) -> Tensor:
        if self.fgs1 is None:
            return inputs.fgs1.new_zeros(*inputs.fgs1.shape[:2], self.options.ssm.proj_out)
        return self.fgs1(inputs.fgs1, inputs.n_steps)

    def save(self, directory: Path) -> None:
        """`network.safetensors` and `network.json` in an existing directory."""
        from safetensors.torch import save_file

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, directory / "network.safetensors")
        header = {"format": FORMAT, "options": asdict(self.options)}
        (directory / "network.json").write_text(json.dumps(header, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, directory: Path) -> V50:
        """On the CPU, in evaluation mode. Raises InputError if the files are missing or of another format."""
        from safetensors.torch import load_file

        path = directory / "network.json"
        header: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"format": "no network.json"}
        if header.get("format") != FORMAT:
            raise InputError(path, FORMAT, str(header.get("format")), "Point to a directory that training wrote.")
        tensors = load_file(directory / "network.safetensors")
        graph = SpectralGraph(**{name: tensors[f"airs.{name}"] for name in SpectralGraph.__dataclass_fields__})
        network = cls(from_dict(NetworkOptions, header["options"]), graph)
        network.load_state_dict(tensors)
        return network.eval()


def principal_directions(covariance: Floats, count: int) -> Tensor:
    """Covariances (P, N, N) to (P, N, count), float32: eigenvectors times the fourth root of their eigenvalues, for the
    largest ones, so that the matrix times its transpose is the symmetric square root in these directions."""
    values, vectors = np.linalg.eigh(covariance)
    scale = np.maximum(values[:, -count:], 0.0) ** 0.25
    return torch.from_numpy((vectors[:, :, -count:] * scale[:, None]).astype(np.float32))


def node_importance(network: V50, inputs: V50Inputs) -> Tensor:
    """How much each bin's features matter for what the network changes (P, N): gradient times feature, in absolute
    value, of the summed squares of mean corrections in analytic sigmas and of log sigma factors."""
    nodes = inputs.nodes.detach().requires_grad_()
    with torch.enable_grad():
        output = network(inputs._replace(nodes=nodes))
        change = ((output.mean - inputs.mean) / inputs.sigma) ** 2 + (output.sigma / inputs.sigma).log() ** 2
        (gradient,) = torch.autograd.grad(change.sum(), nodes)
    return (gradient * nodes).abs().sum(-1).detach()
