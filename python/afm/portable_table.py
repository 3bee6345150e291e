"""The fused embedding table of a model file as plain torch: one gather for all fields, dense or factorized, floats or
integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from afm.plan import LayerPlan, Tier

# Rows of all fields are padded to one width, so that one gather takes whole rows, unless the table grows beyond this.
WIDEST_PADDING = 1.5


@dataclass
class Block:
    """A tier of a field, as its rows lie in the file (libafm/nn/embedding.h)."""

    field: int
    first: int  # ids [first, first + rows)
    rows: int
    shared: bool
    rank: int
    row: int  # its first stored row, counted over all blocks
    element: int  # its first element in the flat table
    scale: int  # its first scale, when there is one per row

    @property
    def stored(self) -> int:
        return 1 if self.shared else self.rows


class Layout:
    """Fields, their slots, and their blocks of rows."""

    def __init__(self, fields: list[Any], plan: LayerPlan, dim: int, wide: bool):
        self.cardinalities = [field.cardinality for field in fields]
        self.slots = [field.max_values if field.kind == "multi" else 1 for field in fields]
        self.multi = [field.kind == "multi" for field in fields]
        self.widths = list(plan.ranks) or [dim] * len(fields)
        self.wide = wide and not plan.joint
        self.widest = max(self.widths)
        self.field_of_slot = [j for j, slots in enumerate(self.slots) for _ in range(slots)]
        self.blocks: list[list[Block]] = []
        self.rows = self.elements = self.row_scales = 0
        for j, cardinality in enumerate(self.cardinalities):
            tiers = (plan.tiers[j] if plan.tiers else []) or [Tier(cardinality, self.widths[j])]
            self.blocks.append(self._add(j, tiers))
        self.all_blocks = [block for blocks in self.blocks for block in blocks]
        self.tiered = any(len(blocks) > 1 or blocks[0].shared for blocks in self.blocks)

    def _add(self, field: int, tiers: list[Tier]) -> list[Block]:
        blocks, first = [], 0
        for tier in tiers:
            block = Block(field, first, tier.rows, tier.shared, tier.rank, self.rows, self.elements, self.row_scales)
            blocks.append(block)
            first += tier.rows
            self.rows += block.stored
            self.elements += block.stored * (tier.rank + self.wide)
            self.row_scales += block.stored if tier.rank else 0
        return blocks

    @property
    def padded_elements(self) -> int:
        return self.rows * (self.widest + self.wide)


def decode_codes(codes: torch.Tensor, count: int) -> torch.Tensor:
    """int8 codes [count] of either kind; int4 are two to a byte, the first in the low half."""
    if codes.dtype == torch.int8:
        return codes
    halves = torch.stack([codes & 15, codes >> 4], 1).flatten()[:count].to(torch.int8)
    return torch.where(halves > 7, halves - 16, halves)


class Scales:
    """The scales of an integer table, read in the order of libafm/nn/model_file.h."""

    def __init__(self, stored: torch.Tensor, layout: Layout, by: str):
        stored = stored.float()
        count = layout.row_scales if by == "row" else sum(layout.widths)
        self.layout, self.by = layout, by
        self.of_values, self.of_wide = stored[:count], stored[count:]

    def of_rows(self) -> torch.Tensor:
        """[stored rows], 1 where a row has no values."""
        scales = torch.ones(self.layout.rows)
        for block in self.layout.all_blocks:
            if block.rank:
                scales[block.row : block.row + block.stored] = self.of_values[block.scale : block.scale + block.stored]
        return scales

    def of_columns(self, field: int) -> torch.Tensor:
        """[widest] of a field, 0 behind its last column."""
        first, width = sum(self.layout.widths[:field]), self.layout.widths[field]
        return torch.nn.functional.pad(self.of_values[first : first + width], (0, self.layout.widest - width))


def take(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows [*, C] of a table [N, C], of any type: a single Gather in ONNX, with indices of any integer type."""
    return torch.nn.functional.embedding(index, table)


class Table(torch.nn.Module):
    """ids [B, S] -> rows [B, S, widest (+ 1)]: values, then the wide weight. What a field or a tier lacks is zero.

    Integers stay int8 where that makes the table smaller.
    """

    def __init__(self, layout: Layout, stored: Mapping[str, torch.Tensor], plan: LayerPlan):
        super().__init__()
        self.layout, self.tiered = layout, layout.tiered
        floats = plan.bits == "float"
        table = stored["floats"].flatten() if floats else decode_codes(stored["codes"], layout.elements)
        self.scale = None if floats else Scales(stored["scale"], layout, plan.scale)
        if self.scale and plan.scale == "row" and layout.widest + layout.wide < 2:
            table = self._floats(table.float())
        self.padded = layout.padded_elements <= WIDEST_PADDING * layout.elements
        self.register_buffer("table", self._padded(table) if self.padded else table)
        self._place_rows()
        if not self.padded:
            self._place_elements()
        if self.scale:
            self._place_scales()
        self.has_scale, self.row_scale = bool(self.scale), bool(self.scale) and self.scale.by == "row"
        del self.layout, self.scale

    def _floats(self, codes: torch.Tensor) -> torch.Tensor:
        """Rows of one value cost more with a scale each than as floats."""
        scales, parts = self.scale.of_rows(), []
        for block in self.layout.all_blocks:
            size = block.rank + self.layout.wide
            rows = codes[block.element : block.element + block.stored * size].view(block.stored, size)
            wide = self.scale.of_wide[block.field] if self.layout.wide else None
            value = rows[:, : block.rank] * scales[block.row : block.row + block.stored, None]
            parts.append(torch.cat([value, rows[:, block.rank :] * wide], 1) if self.layout.wide else value)
        self.scale = None
        return torch.cat([part.flatten() for part in parts])

    def _padded(self, flat: torch.Tensor) -> torch.Tensor:
        layout = self.layout
        table = torch.zeros(layout.rows, layout.widest + layout.wide, dtype=flat.dtype)
        for block in layout.all_blocks:
            size = block.rank + layout.wide
            rows = flat[block.element : block.element + block.stored * size].view(block.stored, size)
            place = table[block.row : block.row + block.stored]
            place[:, : block.rank] = rows[:, : block.rank]
            if layout.wide:
                place[:, -1] = rows[:, -1]
        return table

    def _register(self, name: str, values: list) -> None:
        """Positions as int32 where they fit: ids of that type then stay as they are."""
        fits = self.layout.padded_elements < 2**31
        self.register_buffer(name, torch.tensor(values, dtype=torch.int32 if fits else torch.int64))

    def _place_rows(self) -> None:
        """row = first_row + id * row_step, per slot, or per tier."""
        blocks = self.layout.blocks
        if not self.tiered:
            self._register("first_row", [blocks[j][0].row for j in self.layout.field_of_slot])
            return
        most = max(len(tiers) for tiers in blocks)
        ends, before = [], 0
        starts = {}
        for j, tiers in enumerate(blocks):
            starts[j] = before
            before += len(tiers)
            inner = [tier.first + tier.rows for tier in tiers[:-1]]
            ends.append(inner + [self.layout.cardinalities[j]] * (most - 1 - len(inner)))
        self._register("tier_end", [ends[j] for j in self.layout.field_of_slot])  # [S, most - 1]
        self._register("first_tier", [starts[j] for j in self.layout.field_of_slot])
        every = self.layout.all_blocks
        self._register("row_step", [0 if block.shared else 1 for block in every])
        self._register("first_row", [block.row if block.shared else block.row - block.first for block in every])

    def _place_elements(self) -> None:
        """element = first_element + id * element_step + column, per slot, or per tier."""
        layout = self.layout
        each = layout.all_blocks if self.tiered else [layout.blocks[j][0] for j in layout.field_of_slot]
        size = [block.rank + layout.wide for block in each]
        step = [0 if block.shared else n for block, n in zip(each, size, strict=True)]
        first = [block.element - block.first * s if n else 0 for block, n, s in zip(each, size, step, strict=True)]
        wide = [[block.rank] if layout.wide else [] for block in each]
        columns = [
            [c if c < block.rank else 0 for c in range(layout.widest)] + w for block, w in zip(each, wide, strict=True)
        ]
        missing = [[c >= block.rank for c in range(layout.widest)] + [False] * layout.wide for block in each]
        self._register("element_step", step)
        self._register("first_element", first)
        self._register("column", columns)
        self._register("missing", missing)

    def _place_scales(self) -> None:
        layout = self.layout
        wide = [self.scale.of_wide[j].item() if layout.wide else 0.0 for j in layout.field_of_slot]
        if self.scale.by == "row":
            self.register_buffer("row_scales", self.scale.of_rows()[:, None])
            # A row's scale goes to its values, 1 to its wide weight, which has a scale of its own.
            self.register_buffer("is_value", torch.tensor([1.0] * layout.widest + [0.0] * layout.wide))
            fixed = [[0.0] * layout.widest + [w] * layout.wide for w in wide]
        else:
            columns = [self.scale.of_columns(j).tolist() for j in layout.field_of_slot]
            fixed = [column + [w] * layout.wide for column, w in zip(columns, wide, strict=True)]
        self.register_buffer("fixed_scale", torch.tensor(fixed))  # [S, widest (+ 1)]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        tier = self.first_tier + (ids.unsqueeze(-1) >= self.tier_end).sum(-1, dtype=torch.int32) if self.tiered else ids
        row = (
            ids * self._of(self.row_step, tier) + self._of(self.first_row, tier)
            if self.tiered
            else ids + self.first_row
        )
        if self.padded:
            values = take(self.table, row)
        else:
            step, first = self._of(self.element_step, tier), self._of(self.first_element, tier)
            column = take(self.column, tier) if self.tiered else self.column
            missing = take(self.missing, tier) if self.tiered else self.missing
            element = (ids * step + first).unsqueeze(-1) + column
            values = take(self.table.unsqueeze(1), element).squeeze(-1).masked_fill(missing > 0, 0)
        if not self.has_scale:
            return values
        values = values.to(self.fixed_scale.dtype)
        if self.row_scale:
            return values * (take(self.row_scales, row) * self.is_value + self.fixed_scale)
        return values * self.fixed_scale

    def _of(self, each: torch.Tensor, tier: torch.Tensor) -> torch.Tensor:
        """What belongs to a row's tier, or to its slot where there are no tiers."""
        return take(each.unsqueeze(1), tier).squeeze(-1) if self.tiered else each
