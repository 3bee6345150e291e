"""What the layers behind the embedding of a model file read, as plain torch."""

from __future__ import annotations

import torch

from afm.portable_layers import StoredModel
from afm.portable_table import Layout, Table


class Features(torch.nn.Module):
    """ids [B, S] -> what the layers behind read, [B, F, D] or, folded, the latents [B, K]; and the wide sum [B]."""

    def __init__(self, stored: StoredModel, wide: bool):
        super().__init__()
        plan, dim = stored.layer("embedding"), stored.options["embedding_dim"]
        fields = [field for field in stored.schema.fields if field.kind != "numeric"]
        layout = Layout(fields, plan, dim, wide)
        name = "embedding.latent" if plan.ranks else "embedding.weight"
        names = {"floats": name} if plan.bits == "float" else {"codes": f"{name}.codes", "scale": f"{name}.scale"}
        self.table = Table(layout, {key: stored[value] for key, value in names.items()}, plan)
        self.widest, self.wide, self.dim = layout.widest, layout.wide, dim
        self.folded, self.expands = plan.basis == "none" and bool(plan.ranks), bool(plan.ranks) and plan.basis != "none"
        self.joint = plan.joint and self.expands
        self.multi = any(layout.multi)
        self.ranks = [width + multi for width, multi in zip(layout.widths, layout.multi, strict=True)]
        if self.multi:
            slots = torch.tensor(layout.field_of_slot)
            self.register_buffer("member", (slots == torch.arange(len(fields))[:, None]).float())  # [F, S]
        if self.expands:
            self._place_basis(stored["embedding.basis"], layout, plan.basis == "shared")
            self.register_buffer("offset", stored["embedding.offset"])
        if self.folded:
            self._place_latents(layout)

    def _place_basis(self, basis: torch.Tensor, layout: Layout, shared: bool) -> None:
        padded = torch.zeros(len(layout.widths), self.widest, basis.shape[1])
        first = 0
        for j, width in enumerate(layout.widths):
            padded[j, :width] = basis[first : first + width]
            first += 0 if shared else width
        self.register_buffer("basis", padded)

    def _place_latents(self, layout: Layout) -> None:
        """Where each latent lies in the padded rows; behind those of a multi-valued field, whether it has a value."""
        index, fields = [], len(layout.widths)
        for j, width in enumerate(layout.widths):
            index += [j * self.widest + c for c in range(width)]
            index += [fields * self.widest + j] * layout.multi[j]
        self.in_order = index == list(range(fields * self.widest))
        self.register_buffer("latent_index", torch.tensor(index))

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        rows, some = self.pooled(ids)
        wide = rows[:, :, self.widest :].sum((1, 2)) if self.wide else None
        values = rows[:, :, : self.widest] if self.wide else rows
        if self.folded:
            flat = values.flatten(1)
            if not self.in_order:
                flat = (torch.cat([flat, some], 1) if self.multi else flat).index_select(1, self.latent_index)
            return flat, wide
        if self.expands:
            offset = self.offset * some.unsqueeze(-1) if self.multi else self.offset
            values = torch.bmm(values.transpose(0, 1), self.basis).transpose(0, 1) + offset
            if self.joint:
                return values[:, :, : self.dim], values[:, :, self.dim].sum(1)
        return values, wide

    def pooled(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows [B, F, widest (+ 1)], the mean over the filled slots; and [B, F] 1 where there are any."""
        if not self.multi:
            return self.table(ids), ids
        filled = (ids >= 0).to(self.member.dtype)  # [B, S]
        count = filled @ self.member.t()  # [B, F]
        share = filled * (count.clamp(min=1).reciprocal() @ self.member)
        return self.member @ (self.table(ids.clamp(min=0)) * share.unsqueeze(-1)), count.clamp(max=1)
