// Rows of tables and what fields make of each other. Included behind kernels_linear.inl.

float float_of_bfloat16(const void* values, int64_t index) {
  uint16_t half;
  __builtin_memcpy(&half, static_cast<const char*>(values) + 2 * index, sizeof half);
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// Elements of a table: one, or the first `count` of 16 from one on, the others being zero.
struct FloatTable {
  static float at(const void* table, int64_t index) {
    float value;
    __builtin_memcpy(&value, static_cast<const char*>(table) + 4 * index, sizeof value);
    return value;
  }
  AFM_INLINE static Lanes from(const void* table, int64_t index, int64_t count) {
    return load_first(reinterpret_cast<const float*>(static_cast<const char*>(table) + 4 * index), count);
  }
};

struct Int8Table {
  static float at(const void* table, int64_t index) { return static_cast<const int8_t*>(table)[index]; }
  AFM_INLINE static Lanes from(const void* table, int64_t index, int64_t count) {
    return int8_first(static_cast<const int8_t*>(table) + index, count);
  }
};

struct Int4Table {
  static float at(const void* table, int64_t index) {
    const int byte = static_cast<const uint8_t*>(table)[index >> 1];
    const int four = (index & 1) == 0 ? byte & 15 : byte >> 4;
    return static_cast<float>((four ^ 8) - 8);
  }
  AFM_INLINE static Lanes from(const void* table, int64_t index, int64_t count) {
    return int4_first(static_cast<const uint8_t*>(table) + (index >> 1), (index & 1) != 0, count);
  }
};

AFM_INLINE float scale_of_row(const FieldTable& table, const TierRows& tier, int64_t id) {
  if (table.row_scale == nullptr || tier.rank == 0) return 1;
  return float_of_bfloat16(table.row_scale, tier.stride == 0 ? tier.scale : tier.scale + (id - tier.first));
}

template <class Table>
AFM_INLINE void read_row(const FieldTable& table, const TierRows& tier, int64_t id, float* values, float* wide) {
  const int64_t begin = tier.start + (id - tier.first) * tier.stride;
  const float scale = scale_of_row(table, tier, id);
  for (int64_t c = 0; c < table.width; c += kPanel) {
    const int64_t count = tier.rank > c ? tier.rank - c : 0;
    Lanes lanes = Table::from(table.elements, begin + c, smaller(count, kPanel));
    if (table.row_scale != nullptr)
      lanes = mul(lanes, broadcast(&scale));
    else if (table.column_scale != nullptr)
      lanes = mul(lanes, load_first(table.column_scale + c, count));
    store_first(values + c, table.width - c, lanes);
  }
  if (table.wide && wide != nullptr) *wide += Table::at(table.elements, begin + tier.rank) * table.wide_scale;
}

// Asks for the first and the last line of a row, and for its scale: rows are short.
AFM_INLINE void prefetch_row(const FieldTable& table, const TierRows& tier, int64_t id) {
  const int64_t bits = table.bits == Bits::kFloat ? 32 : table.bits == Bits::kInt8 ? 8 : 4;
  const int64_t begin = tier.start + (id - tier.first) * tier.stride, last = begin + tier.stride - 1;
  const auto* elements = static_cast<const char*>(table.elements);
  __builtin_prefetch(elements + begin * bits / 8);
  __builtin_prefetch(elements + (last > begin ? last : begin) * bits / 8);
  if (table.row_scale == nullptr || tier.stride == 0) return;
  __builtin_prefetch(static_cast<const char*>(table.row_scale) + 2 * (tier.scale + (id - tier.first)));
}

// Most fields have one tier; this is the way of the others.
const TierRows& later_tier(const FieldTable& table, int64_t id) {
  const TierRows* tier = table.tiers + 1;
  while (id >= tier->end) ++tier;
  return *tier;
}

AFM_INLINE const TierRows& tier_of(const FieldTable& table, int64_t id) {
  const TierRows& first = table.tiers[0];
  return id < first.end ? first : later_tier(table, id);
}

// Inline: GCC drops the call of a function that does nothing but prefetch.
AFM_INLINE void prefetch(const FieldPlace* fields, int64_t count, const int32_t* ids) {
  for (int64_t f = 0; f < count; ++f) {
    const FieldTable& table = fields[f].table;
    const int64_t id = ids[fields[f].slot];
    prefetch_row(table, tier_of(table, id), id);
  }
}

void read_fields(const FieldPlace* fields, int64_t count, const int32_t* ids, float* values, float* wide) {
  for (int64_t f = 0; f < count; ++f) {
    const FieldTable& table = fields[f].table;
    const int64_t id = ids[fields[f].slot];
    const TierRows& tier = tier_of(table, id);
    float* to = values + fields[f].column;
    switch (table.bits) {
      case Bits::kFloat:
        read_row<FloatTable>(table, tier, id, to, wide);
        break;
      case Bits::kInt8:
        read_row<Int8Table>(table, tier, id, to, wide);
        break;
      case Bits::kInt4:
        read_row<Int4Table>(table, tier, id, to, wide);
        break;
    }
  }
}

void gather_ahead(int64_t ahead, const FieldPlace* fields, int64_t count, const int32_t* ids, int64_t id_stride,
                  int64_t rows, float* values, int64_t value_stride, float* wide) {
  for (int64_t r = 0; r < rows && r < ahead; ++r) prefetch(fields, count, ids + r * id_stride);
  for (int64_t r = 0; r < rows; ++r) {
    if (r + ahead < rows) prefetch(fields, count, ids + (r + ahead) * id_stride);
    read_fields(fields, count, ids + r * id_stride, values + r * value_stride, wide == nullptr ? nullptr : wide + r);
  }
}

// Rows of tables wait for memory, so several travel at once: those of the next row, or where there are many rows of x,
// field by field, those of the next eight.
void gather(const FieldPlace* fields, int64_t count, const int32_t* ids, int64_t id_stride, int64_t rows, float* values,
            int64_t value_stride, float* wide) {
  constexpr int64_t kAhead = 8;
  if (rows <= kAhead) return gather_ahead(1, fields, count, ids, id_stride, rows, values, value_stride, wide);
  for (int64_t f = 0; f < count; ++f) {
    const FieldPlace place = fields[f];
    gather_ahead(kAhead, &place, 1, ids, id_stride, rows, values, value_stride, wide);
  }
}

// 1/2 sum_f sum_c e_fc (s_c - e_fc), s = sum_f e_f: without the difference of two large squares.
void factorization_machine(const float* values, int64_t stride, int64_t rows, int64_t fields, int64_t dim,
                           float* scratch, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = values + r * stride;
    for (int64_t d = 0; d < dim; ++d) scratch[d] = 0;
    for (int64_t f = 0; f < fields; ++f) {
      for (int64_t d = 0; d < dim; ++d) scratch[d] += row[f * dim + d];
    }
    float total = 0;
    for (int64_t d = 0; d < dim; d += kPanel) {
      const int64_t width = smaller(dim - d, kPanel);
      const Lanes all = load_first(scratch + d, width);
      Lanes products = zero();
      for (int64_t f = 0; f < fields; ++f) {
        const Lanes one = load_first(row + f * dim + d, width);
        products = fma(one, subtract(all, one), products);
      }
      total += sum(products);
    }
    out[r] += 0.5F * total;
  }
}

void prefix_machine(const float* latents, int64_t stride, int64_t rows, const int64_t* ranks, int64_t fields,
                    float* scratch, float* out) {
  int64_t widest = 0;
  for (int64_t f = 0; f < fields; ++f) widest = ranks[f] > widest ? ranks[f] : widest;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < widest; ++c) scratch[c] = 0;
    const float* z = latents + r * stride;
    for (int64_t f = 0; f < fields; z += ranks[f], ++f) {
      for (int64_t c = 0; c < ranks[f]; ++c) scratch[c] += z[c];
    }
    float total = 0;
    z = latents + r * stride;
    for (int64_t f = 0; f < fields; z += ranks[f], ++f) {
      for (int64_t c = 0; c < ranks[f]; ++c) total += z[c] * (scratch[c] - z[c]);
    }
    out[r] += 0.5F * total;
  }
}

void decoded_machine(const float* latents, int64_t stride, int64_t rows, const DecodedFields& fields,
                     const float* start, float* out) {
  const int64_t width = (fields.dim + kPanel - 1) / kPanel * kPanel;
  for (int64_t r = 0; r < rows; ++r) {
    Lanes total = zero();
    for (int64_t d = 0; d < width; d += kPanel) {
      const float *z = latents + r * stride, *basis = fields.basis + d;
      Lanes all = start == nullptr ? zero() : load_first(start + d, fields.dim - d), own = zero();
      for (int64_t f = 0; f < fields.count; ++f) {
        Lanes one = zero();
        for (int64_t i = 0; i < fields.ranks[f]; ++i, basis += width) one = fma(broadcast(z + i), load(basis), one);
        z += fields.ranks[f];
        all = add(all, one);
        own = fma(one, one, own);
      }
      total = add(total, subtract(mul(all, all), own));
    }
    out[r] += 0.5F * sum(total);
  }
}

void axpy(float a, const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

void multiply_add(const float* a, const float* b, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += a[i] * b[i];
}

constexpr Kernels kTable = {.linear = linear,
                            .gather = gather,
                            .factorization_machine = factorization_machine,
                            .prefix_machine = prefix_machine,
                            .decoded_machine = decoded_machine,
                            .dot = dot,
                            .axpy = axpy,
                            .multiply_add = multiply_add};
