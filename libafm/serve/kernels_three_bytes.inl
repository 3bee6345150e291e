// One row by a large float matrix, at three bytes a weight: see Note [Three-byte weights] in matrix.cpp. Included
// behind kernels_linear.inl by instruction sets that define lanes_of(codes), the 32-bit integers as floats, and
// low_bytes(a, b, c), the lowest bytes of each in the places 2^8, 2^16 and 2^24.

constexpr int kGroup = 4;  // panels

// Weights of one column, in steps of their rows.
AFM_INLINE void add_group_column(const Tile& tile, int64_t column, Lanes (&sums)[kGroup]) {
  const char* words = tile.panels + 3 * kStepBytes * column;
  const Codes a = load_codes(words), b = load_codes(words + kStepBytes), c = load_codes(words + 2 * kStepBytes);
  const Lanes value = broadcast(tile.x + column);
  sums[0] = fma(value, lanes_of(a), sums[0]);
  sums[1] = fma(value, lanes_of(b), sums[1]);
  sums[2] = fma(value, lanes_of(c), sums[2]);
  sums[3] = fma(value, lanes_of(low_bytes(a, b, c)), sums[3]);
}

void compute_group(const Tile& tile, const int32_t* list, int64_t count) {
  constexpr int kUnroll = kSums / kGroup;
  Lanes sums[kUnroll][kGroup];
  AFM_UNROLL for (int u = 0; u < kUnroll; ++u) { AFM_UNROLL for (int p = 0; p < kGroup; ++p) sums[u][p] = zero(); }
  int64_t k = 0;
  for (; k + kUnroll <= count; k += kUnroll) {
    AFM_UNROLL for (int u = 0; u < kUnroll; ++u) add_group_column(tile, list[k + u], sums[u]);
  }
  if (k < count) add_group_column(tile, list[k], sums[0]);
  static_assert(kUnroll == 1 || kUnroll == 2);
  AFM_UNROLL for (int p = 0; p < kGroup; ++p) {
    if constexpr (kUnroll == 2) sums[0][p] = add(sums[0][p], sums[1][p]);
  }
  finish(tile, sums[0], 1, kGroup);
}

// Gives the number of panels that it computed: whole groups.
int64_t compute_groups(const PackedMatrix& matrix, const LinearCall& call, const int32_t* list, int64_t count) {
  const int64_t panels = (matrix.rows + kPanel - 1) / kPanel / kGroup * kGroup;
  for (int64_t p = 0; p < panels; p += kGroup) {
    Tile tile = tile_of<FloatPanel>(matrix, call, 0, p, kGroup);
    tile.panels = static_cast<const char*>(matrix.three_bytes) + 3 * kStepBytes * matrix.columns * (p / kGroup);
    tile.scale = matrix.steps + kPanel * p;
    compute_group(tile, list, count);
  }
  return panels;
}
