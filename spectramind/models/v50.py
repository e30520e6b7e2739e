"""The V50 network: what the FGS1 sequence and the spectral graph know beyond the transit fit.

It corrects the analytic posterior of a planet (`models.analytic`): an untrained network returns it unchanged.

Axis letters: P planets, V visits (one or two of each planet), T steps, N = 283 bins, R principal directions.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spectramind.errors import InputError
from spectramind.models import fgs1_encoder
from spectramind.models.fgs1_encoder import FGS1Encoder
from spectramind.models.fusion import Fusion
from spectramind.models.gnn import AIRSGraphNetwork
from spectramind.models.heads import MuHead, SigmaHead, correction, sigma_floors
from spectramind.models.network_inputs import STAR_FEATURES, V50Inputs
from spectramind.models.options import NetworkOptions
from spectramind.models.spectral_graph import SpectralGraph
from spectramind.options import from_dict

FORMAT = "spectramind-v50-1"


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
