// Rows of tables and what fields make of each other. Included behind kernels_linear.inl.

float float_of_bfloat16(const void* values, int64_t index) {
  uint16_t half;
  __builtin_memcpy(&half, static_cast<const char*>(values) + 2 * index, sizeof half);
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

struct FloatTable {
  static float at(const void* table, int64_t index) {
    float value;
    __builtin_memcpy(&value, static_cast<const char*>(table) + 4 * index, sizeof value);
    return value;
  }
};

struct Int8Table {
  static float at(const void* table, int64_t index) { return static_cast<const int8_t*>(table)[index]; }
};

struct Int4Table {
  static float at(const void* table, int64_t index) {
    const int byte = static_cast<const uint8_t*>(table)[index >> 1];
    const int four = (index & 1) == 0 ? byte & 15 : byte >> 4;
    return static_cast<float>((four ^ 8) - 8);
  }
};

template <class Table>
AFM_INLINE void read_row(const FieldTable& table, const TierRows& tier, int64_t id, float* values, float* wide) {
  const int64_t begin = tier.start + (id - tier.first) * tier.stride;
  if (table.row_scale != nullptr) {
    const int64_t index = tier.stride == 0 ? tier.scale : tier.scale + (id - tier.first);
    const float scale = tier.rank == 0 ? 0.0F : float_of_bfloat16(table.row_scale, index);
    for (int64_t c = 0; c < tier.rank; ++c) values[c] = Table::at(table.elements, begin + c) * scale;
  } else if (table.column_scale != nullptr) {
    for (int64_t c = 0; c < tier.rank; ++c) values[c] = Table::at(table.elements, begin + c) * table.column_scale[c];
  } else {
    for (int64_t c = 0; c < tier.rank; ++c) values[c] = Table::at(table.elements, begin + c);
  }
  for (int64_t c = tier.rank; c < table.width; ++c) values[c] = 0;
  if (table.wide && wide != nullptr) *wide += Table::at(table.elements, begin + tier.rank) * table.wide_scale;
}

template <class Table>
void gather_rows(const FieldTable& table, const int32_t* ids, int64_t id_stride, int64_t rows, float* values,
                 int64_t value_stride, float* wide) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t id = ids[r * id_stride];
    const TierRows* tier = table.tiers;
    while (id >= tier->end) ++tier;
    read_row<Table>(table, *tier, id, values + r * value_stride, wide == nullptr ? nullptr : wide + r);
  }
}

void gather(const FieldTable& table, const int32_t* ids, int64_t id_stride, int64_t rows, float* values,
            int64_t value_stride, float* wide) {
  switch (table.bits) {
    case Bits::kFloat:
      return gather_rows<FloatTable>(table, ids, id_stride, rows, values, value_stride, wide);
    case Bits::kInt8:
      return gather_rows<Int8Table>(table, ids, id_stride, rows, values, value_stride, wide);
    case Bits::kInt4:
      return gather_rows<Int4Table>(table, ids, id_stride, rows, values, value_stride, wide);
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

void subtract_own(const float* latents, int64_t stride, int64_t rows, const int64_t* ranks, int64_t fields,
                  const float* grams, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* z = latents + r * stride;
    const float* gram = grams;
    float total = 0;
    for (int64_t f = 0; f < fields; ++f) {
      const int64_t rank = ranks[f];
      for (int64_t i = 0; i < rank; ++i, gram += rank) {
        float along = 0;
        for (int64_t j = 0; j < rank; ++j) along += gram[j] * z[j];
        total += along * z[i];
      }
      z += rank;
    }
    out[r] -= 0.5F * total;
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
                            .subtract_own = subtract_own,
                            .dot = dot,
                            .axpy = axpy,
                            .multiply_add = multiply_add};
