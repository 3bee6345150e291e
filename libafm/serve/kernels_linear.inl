// y = act(x W' + bias) by tiles of R rows of x and P panels of W, held in registers. Included inside the anonymous
// namespace of a file per instruction set, which defines:
//   AFM_INLINE, Lanes (16 floats), Codes (16 times 32 bits)
//   kMaxPanels             of a tile, 1 or 2
//   FullTiles, LastTiles   how many rows a tile of kMaxPanels may have, and one of a single panel that is left over
//   FewTiles               the same while integers are widened anew for each tile; its first number is the most rows
//   kSums                  Lanes of sums in flight that hide the latency of an addition
//   zero, broadcast, load, load_first, store, store_first, add, subtract, mul, fma (a * b + c), relu, sum
//   load_codes, int8_at<bit>, int4_at<bit>  the integers from that bit of each 32 on, as Lanes
//   int8_first(from, count), int4_first(from, odd, count)  the first `count` of 16 integers, those of int4 from the
//       higher half of a byte on when odd; the others are zero, and what lies behind them is not read

constexpr int64_t kPanel = 16, kStepBytes = 64;

// A panel lies in steps of kColumns columns, 64 bytes each.
struct FloatPanel {
  static constexpr int kColumns = 1;
  using Step = Lanes;
  AFM_INLINE static Step read(const char* step) { return load(reinterpret_cast<const float*>(step)); }
  template <int Column>
  AFM_INLINE static Lanes column(const Step& step) {
    return step;
  }
};

struct Int8Panel {
  static constexpr int kColumns = 4;
  using Step = Codes;
  AFM_INLINE static Step read(const char* step) { return load_codes(step); }
  template <int Column>
  AFM_INLINE static Lanes column(const Step& step) {
    return int8_at<8 * Column>(step);
  }
};

struct Int4Panel {
  static constexpr int kColumns = 8;
  using Step = Codes;
  AFM_INLINE static Step read(const char* step) { return load_codes(step); }
  template <int Column>
  AFM_INLINE static Lanes column(const Step& step) {
    return int4_at<8 * (Column % 4) + 4 * (Column / 4)>(step);
  }
};

struct Tile {
  const char* panels = nullptr;
  int64_t steps = 0;  // of a panel
  const float* x = nullptr;
  int64_t x_stride = 0;
  const float* scale = nullptr;  // [16 P] or null
  const float* bias = nullptr;   // [outputs] or null
  float* y = nullptr;
  int64_t y_stride = 0;
  int64_t outputs = 0;  // of a row, at most 16 P
  bool relu = false;
};

// Column c of an iteration goes to sum c modulo Unroll.
template <class Panel, int First, int Unroll, int R, int P, int Column = 0>
AFM_INLINE void add_columns(const typename Panel::Step (&steps)[P], const float* x, int64_t x_stride,
                            Lanes (&sums)[Unroll][R][P]) {
  if constexpr (Column < Panel::kColumns) {
    constexpr int kSum = (First + Column) % Unroll;
    Lanes weights[P];
    AFM_UNROLL for (int p = 0; p < P; ++p) weights[p] = Panel::template column<Column>(steps[p]);
    AFM_UNROLL for (int r = 0; r < R; ++r) {
      const Lanes value = broadcast(x + r * x_stride + Column);
      AFM_UNROLL for (int p = 0; p < P; ++p) sums[kSum][r][p] = fma(value, weights[p], sums[kSum][r][p]);
    }
    add_columns<Panel, First, Unroll, R, P, Column + 1>(steps, x, x_stride, sums);
  }
}

// `Count` steps from step s on, by recursion: each has sums of its own.
template <class Panel, int Count, int Unroll, int R, int P, int I = 0>
AFM_INLINE void add_steps(const Tile& tile, int64_t s, Lanes (&sums)[Unroll][R][P]) {
  if constexpr (I < Count) {
    typename Panel::Step steps[P];
    AFM_UNROLL for (int p = 0; p < P; ++p) steps[p] = Panel::read(tile.panels + kStepBytes * (s + p * tile.steps));
    add_columns<Panel, I * Panel::kColumns, Unroll, R, P>(steps, tile.x + Panel::kColumns * s, tile.x_stride, sums);
    add_steps<Panel, Count, Unroll, R, P, I + 1>(tile, s + 1, sums);
  }
}

// Sums [rows][panels] of a tile become outputs. Not unrolled: all shapes of tiles share it.
__attribute__((noinline)) void finish(const Tile& tile, const Lanes* sums, int rows, int panels) {
  for (int p = 0; p < panels; ++p) {
    const int64_t outputs = tile.outputs - kPanel * p;
    const Lanes bias = tile.bias == nullptr ? zero() : load_first(tile.bias + kPanel * p, outputs);
    for (int r = 0; r < rows; ++r) {
      Lanes y = sums[r * panels + p];
      y = tile.scale == nullptr ? add(y, bias) : fma(y, load(tile.scale + kPanel * p), bias);
      if (tile.relu) y = relu(y);
      store_first(tile.y + r * tile.y_stride + kPanel * p, outputs, y);
    }
  }
}

template <class Panel, int R, int P>
void compute_tile(const Tile& tile) {
  constexpr int kUnroll = R * P >= kSums ? 1 : kSums / (R * P);
  constexpr int kSteps = kUnroll > Panel::kColumns ? kUnroll / Panel::kColumns : 1;
  Lanes sums[kUnroll][R][P];
  AFM_UNROLL for (int u = 0; u < kUnroll; ++u) {
    AFM_UNROLL for (int r = 0; r < R; ++r) { AFM_UNROLL for (int p = 0; p < P; ++p) sums[u][r][p] = zero(); }
  }
  int64_t s = 0;
  for (; s + kSteps <= tile.steps; s += kSteps) add_steps<Panel, kSteps>(tile, s, sums);
  if constexpr (kSteps > 1) {
    for (; s < tile.steps; ++s) add_steps<Panel, 1>(tile, s, sums);
  }
  Lanes totals[R * P];
  AFM_UNROLL for (int r = 0; r < R; ++r) {
    AFM_UNROLL for (int p = 0; p < P; ++p) {
      AFM_UNROLL for (int u = 1; u < kUnroll; ++u) sums[0][r][p] = add(sums[0][r][p], sums[u][r][p]);
      totals[r * P + p] = sums[0][r][p];
    }
  }
  finish(tile, totals, R, P);
}

// The smallest of the heights, which descend, that holds so many rows; the largest when none does.
template <int Most, int... Lower>
int64_t height_for(Heights<Most, Lower...>, int64_t rows) {
  int64_t height = Most;
  ((height = rows <= Lower ? Lower : height), ...);
  return height;
}

// Nearly equal heights, since a tile of few rows does not fill the processor.
template <int Most, int... Lower>
int64_t next_height(Heights<Most, Lower...> heights, int64_t rows) {
  const int64_t tiles = (rows + Most - 1) / Most;
  const int64_t height = height_for(heights, (rows + tiles - 1) / tiles);
  return height <= rows ? height : height_for(heights, (rows + 1) / 2);
}

template <class Panel, int P, int... R>
AFM_INLINE void compute_rows(Heights<R...>, const Tile& tile, int64_t rows) {
  ((rows == R ? compute_tile<Panel, R, P>(tile) : void()), ...);
}

// All rows for P panels.
template <class Panel, int P, class Allowed>
void compute_panels(Allowed heights, Tile tile, int64_t rows) {
  while (rows > 0) {
    const int64_t height = next_height(heights, rows);
    compute_rows<Panel, P>(heights, tile, height);
    tile.x += height * tile.x_stride;
    tile.y += height * tile.y_stride;
    rows -= height;
  }
}

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class Panel>
Tile tile_of(const PackedMatrix& matrix, const LinearCall& call, int64_t first_row, int64_t first_panel,
             int64_t panels) {
  const int64_t output = kPanel * first_panel;
  Tile tile;
  tile.steps = (matrix.columns + Panel::kColumns - 1) / Panel::kColumns;
  tile.panels = static_cast<const char*>(matrix.elements) + kStepBytes * tile.steps * first_panel;
  tile.x = call.x + first_row * call.x_stride;
  tile.x_stride = call.x_stride;
  tile.scale = matrix.row_scale == nullptr ? nullptr : matrix.row_scale + output;
  tile.bias = call.bias == nullptr ? nullptr : call.bias + output;
  tile.y = call.y + first_row * call.y_stride + output;
  tile.y_stride = call.y_stride;
  tile.outputs = smaller(matrix.rows - output, kPanel * panels);
  tile.relu = call.relu;
  return tile;
}

// x times the scales of the columns, with zeros behind each row up to whole steps.
const float* scaled_rows(const PackedMatrix& matrix, const LinearCall& call, int64_t stride) {
  for (int64_t r = 0; r < call.rows; ++r) {
    const float* from = call.x + r * call.x_stride;
    float* to = call.scratch + r * stride;
    for (int64_t j = 0; j < matrix.columns; ++j) {
      to[j] = matrix.column_scale == nullptr ? from[j] : from[j] * matrix.column_scale[j];
    }
    for (int64_t j = matrix.columns; j < stride; ++j) to[j] = 0;
  }
  return call.scratch;
}

template <class Panel>
void few_rows(const PackedMatrix& matrix, LinearCall call) {
  if (matrix.column_scale != nullptr || matrix.columns % Panel::kColumns != 0) {
    const int64_t stride = (matrix.columns + Panel::kColumns - 1) / Panel::kColumns * Panel::kColumns;
    call.x = scaled_rows(matrix, call, stride);
    call.x_stride = stride;
  }
  const int64_t panels = (matrix.rows + kPanel - 1) / kPanel;
  for (int64_t p = 0; p < panels; ++p) {
    compute_panels<Panel, 1>(FewTiles(), tile_of<Panel>(matrix, call, 0, p, 1), call.rows);
  }
}

template <class Panel, int Column = 0>
AFM_INLINE void widen_columns(const typename Panel::Step& step, const float* scale, int64_t count, float* to) {
  if constexpr (Column < Panel::kColumns) {
    if (Column >= count) return;
    Lanes column = Panel::template column<Column>(step);
    if (scale != nullptr) column = mul(column, broadcast(scale + Column));
    store(to + kPanel * Column, column);
    widen_columns<Panel, Column + 1>(step, scale, count, to);
  }
}

// A panel as floats, times the scales of the columns.
template <class Panel>
void widen_panel(const PackedMatrix& matrix, const char* steps, float* to) {
  for (int64_t j = 0; j < matrix.columns; j += Panel::kColumns) {
    const float* scale = matrix.column_scale == nullptr ? nullptr : matrix.column_scale + j;
    widen_columns<Panel>(Panel::read(steps + kStepBytes * (j / Panel::kColumns)), scale, matrix.columns - j,
                         to + kPanel * j);
  }
}

// A block of rows, small enough to stay in the cache with one pair of panels, passes by all panels.
template <class Panel>
void many_rows(const PackedMatrix& matrix, const LinearCall& call) {
  const int64_t panels = (matrix.rows + kPanel - 1) / kPanel;
  for (int64_t first = 0; first < call.rows; first += kLinearRows) {
    const int64_t rows = smaller(call.rows - first, kLinearRows);
    for (int64_t p = 0; p < panels; p += kMaxPanels) {
      const int64_t count = smaller(panels - p, kMaxPanels);
      Tile tile = tile_of<Panel>(matrix, call, first, p, count);
      if constexpr (Panel::kColumns > 1) {
        for (int64_t one = 0; one < count; ++one) {
          widen_panel<Panel>(matrix, tile.panels + kStepBytes * tile.steps * one,
                             call.scratch + kPanel * matrix.columns * one);
        }
        tile.panels = reinterpret_cast<const char*>(call.scratch);
        tile.steps = matrix.columns;
      }
      if (count == kMaxPanels) {
        compute_panels<FloatPanel, kMaxPanels>(FullTiles(), tile, rows);
      } else {
        compute_panels<FloatPanel, 1>(LastTiles(), tile, rows);
      }
    }
  }
}

// Note [Zeros behind a ReLU]
// One row waits for its weights, and ReLU leaves about half of its columns zero: their weights are not read. The first
// columns tell whether a list of the others pays.
bool has_many_zeros(const float* x, int64_t columns) {
  const int64_t looked = smaller(columns, 32);
  int zeros = 0;
  for (int64_t j = 0; j < looked; ++j) zeros += x[j] == 0 ? 1 : 0;
  return 4 * zeros > looked;
}

int64_t list_columns(const float* x, int64_t columns, int32_t* list) {
  int64_t count = 0;
  for (int64_t j = 0; j < columns; ++j) {
    list[count] = static_cast<int32_t>(j);
    count += x[j] != 0 ? 1 : 0;
  }
  return count;
}

template <int P>
AFM_INLINE void add_column(const Tile& tile, int64_t column, Lanes (&sums)[P]) {
  const Lanes value = broadcast(tile.x + column);
  AFM_UNROLL for (int p = 0; p < P; ++p) {
    sums[p] = fma(value, FloatPanel::read(tile.panels + kStepBytes * (column + p * tile.steps)), sums[p]);
  }
}

template <int P>
void compute_listed(const Tile& tile, const int32_t* list, int64_t count) {
  constexpr int kUnroll = kSums / P;
  Lanes sums[kUnroll][P];
  AFM_UNROLL for (int u = 0; u < kUnroll; ++u) { AFM_UNROLL for (int p = 0; p < P; ++p) sums[u][p] = zero(); }
  int64_t k = 0;
  for (; k + kUnroll <= count; k += kUnroll) {
    AFM_UNROLL for (int u = 0; u < kUnroll; ++u) add_column<P>(tile, list[k + u], sums[u]);
  }
  for (; k < count; ++k) add_column<P>(tile, list[k], sums[0]);
  Lanes totals[P];
  AFM_UNROLL for (int p = 0; p < P; ++p) {
    AFM_UNROLL for (int u = 1; u < kUnroll; ++u) sums[0][p] = add(sums[0][p], sums[u][p]);
    totals[p] = sums[0][p];
  }
  finish(tile, totals, 1, P);
}

// The groups of panels of a large matrix that an instruction set computes from three-byte weights, for one row by its
// listed columns; how many panels these are.
int64_t compute_groups(const PackedMatrix& matrix, const LinearCall& call, const int32_t* list, int64_t count);

void float_linear(const PackedMatrix& matrix, const LinearCall& call) {
  const bool lists = matrix.three_bytes != nullptr || has_many_zeros(call.x, matrix.columns);
  if (call.rows != 1 || !lists) return many_rows<FloatPanel>(matrix, call);
  auto* list = reinterpret_cast<int32_t*>(call.scratch);
  const int64_t count = list_columns(call.x, matrix.columns, list), panels = (matrix.rows + kPanel - 1) / kPanel;
  int64_t p = matrix.three_bytes != nullptr ? compute_groups(matrix, call, list, count) : 0;
  for (; p + kMaxPanels <= panels; p += kMaxPanels) {
    compute_listed<kMaxPanels>(tile_of<FloatPanel>(matrix, call, 0, p, kMaxPanels), list, count);
  }
  if (p < panels) compute_listed<1>(tile_of<FloatPanel>(matrix, call, 0, p, 1), list, count);
}

float dot(const float* a, const float* b, int64_t n) {
  Lanes sums[2] = {zero(), zero()};
  int64_t i = 0;
  for (; i + 2 * kPanel <= n; i += 2 * kPanel) {
    sums[0] = fma(load(a + i), load(b + i), sums[0]);
    sums[1] = fma(load(a + i + kPanel), load(b + i + kPanel), sums[1]);
  }
  for (; i < n; i += kPanel) sums[0] = fma(load_first(a + i, n - i), load_first(b + i, n - i), sums[0]);
  return sum(add(sums[0], sums[1]));
}

void row_major_linear(const PackedMatrix& matrix, const LinearCall& call) {
  const auto* weights = static_cast<const float*>(matrix.elements);
  const int64_t stride = (matrix.columns + kPanel - 1) / kPanel * kPanel;
  for (int64_t r = 0; r < call.rows; ++r) {
    for (int64_t i = 0; i < matrix.rows; ++i) {
      float y = dot(call.x + r * call.x_stride, weights + i * stride, matrix.columns);
      if (call.bias != nullptr) y += call.bias[i];
      call.y[r * call.y_stride + i] = call.relu && y < 0 ? 0 : y;
    }
  }
}

template <class Panel>
void integer_linear(const PackedMatrix& matrix, const LinearCall& call) {
  call.rows <= FewTiles::kMost ? few_rows<Panel>(matrix, call) : many_rows<Panel>(matrix, call);
}

void linear(const PackedMatrix& matrix, const LinearCall& call) {
  if (matrix.row_major) return row_major_linear(matrix, call);
  switch (matrix.bits) {
    case Bits::kFloat:
      return float_linear(matrix, call);
    case Bits::kInt8:
      return integer_linear<Int8Panel>(matrix, call);
    case Bits::kInt4:
      return integer_linear<Int4Panel>(matrix, call);
  }
}
