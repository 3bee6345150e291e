// y = act(x W' + bias) by tiles of R rows of x and P panels of W, held in registers. Included inside the anonymous
// namespace of a file per instruction set, which defines:
//   AFM_INLINE, Lanes (16 floats), Codes (16 times 32 bits)
//   kMaxRows, kMaxPanels   the largest tile; kMaxPanels is 1 or 2
//   kWidenInRegisters      rows up to which integers are widened anew for each tile
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

template <class Panel, int R, int P, int Column = 0>
AFM_INLINE void add_columns(const typename Panel::Step (&steps)[P], const float* x, int64_t x_stride,
                            Lanes (&sums)[R][P]) {
  if constexpr (Column < Panel::kColumns) {
    Lanes weights[P];
    AFM_UNROLL for (int p = 0; p < P; ++p) weights[p] = Panel::template column<Column>(steps[p]);
    AFM_UNROLL for (int r = 0; r < R; ++r) {
      const Lanes value = broadcast(x + r * x_stride + Column);
      AFM_UNROLL for (int p = 0; p < P; ++p) sums[r][p] = fma(value, weights[p], sums[r][p]);
    }
    add_columns<Panel, R, P, Column + 1>(steps, x, x_stride, sums);
  }
}

template <class Panel, int R, int P>
AFM_INLINE void add_step(const Tile& tile, int64_t s, Lanes (&sums)[R][P]) {
  typename Panel::Step steps[P];
  AFM_UNROLL for (int p = 0; p < P; ++p) steps[p] = Panel::read(tile.panels + kStepBytes * (s + p * tile.steps));
  add_columns<Panel, R, P>(steps, tile.x + Panel::kColumns * s, tile.x_stride, sums);
}

template <int R, int P>
AFM_INLINE void finish(const Tile& tile, const Lanes (&sums)[R][P]) {
  AFM_UNROLL for (int p = 0; p < P; ++p) {
    const int64_t outputs = tile.outputs - kPanel * p;
    const Lanes bias = tile.bias == nullptr ? zero() : load_first(tile.bias + kPanel * p, outputs);
    AFM_UNROLL for (int r = 0; r < R; ++r) {
      Lanes y = sums[r][p];
      y = tile.scale == nullptr ? add(y, bias) : fma(y, load(tile.scale + kPanel * p), bias);
      if (tile.relu) y = relu(y);
      store_first(tile.y + r * tile.y_stride + kPanel * p, outputs, y);
    }
  }
}

template <class Panel, int R, int P>
void compute_tile(const Tile& tile) {
  constexpr int kUnroll = R * P >= kSums ? 1 : kSums / (R * P);
  Lanes sums[kUnroll][R][P];
  AFM_UNROLL for (int u = 0; u < kUnroll; ++u) {
    AFM_UNROLL for (int r = 0; r < R; ++r) { AFM_UNROLL for (int p = 0; p < P; ++p) sums[u][r][p] = zero(); }
  }
  int64_t s = 0;
  for (; s + kUnroll <= tile.steps; s += kUnroll) {
    AFM_UNROLL for (int u = 0; u < kUnroll; ++u) add_step<Panel, R, P>(tile, s + u, sums[u]);
  }
  for (; s < tile.steps; ++s) add_step<Panel, R, P>(tile, s, sums[0]);
  AFM_UNROLL for (int u = 1; u < kUnroll; ++u) {
    AFM_UNROLL for (int r = 0; r < R; ++r) {
      AFM_UNROLL for (int p = 0; p < P; ++p) sums[0][r][p] = add(sums[0][r][p], sums[u][r][p]);
    }
  }
  finish<R, P>(tile, sums[0]);
}

// Tiles have at most six rows or an even number: each height is code of its own.
constexpr int kEveryHeight = 6;

template <class Panel, int P, int MaxRows>
void compute_rows(const Tile& tile, int64_t rows) {
  if constexpr (MaxRows > 1) {
    if (rows < MaxRows) return compute_rows<Panel, P, MaxRows - (MaxRows > kEveryHeight ? 2 : 1)>(tile, rows);
  }
  compute_tile<Panel, MaxRows, P>(tile);
}

// Nearly equal heights, since a tile of few rows does not fill the processor.
int64_t next_height(int64_t rows, int64_t most) {
  const int64_t tiles = (rows + most - 1) / most, height = (rows + tiles - 1) / tiles;
  if (height <= kEveryHeight || height % 2 == 0) return height;
  return height < rows ? height + 1 : (rows + 1) / 2;
}

// All rows for P panels.
template <class Panel, int P, int MaxRows>
void compute_panels(Tile tile, int64_t rows) {
  while (rows > 0) {
    const int64_t height = next_height(rows, MaxRows);
    compute_rows<Panel, P, MaxRows>(tile, height);
    tile.x += height * tile.x_stride;
    tile.y += height * tile.y_stride;
    rows -= height;
  }
}

template <class Panel, int MaxRows>
void compute_panels(const Tile& tile, int64_t panels, int64_t rows) {
  if constexpr (kMaxPanels == 2) {
    if (panels == 2) return compute_panels<Panel, 2, MaxRows>(tile, rows);
  }
  compute_panels<Panel, 1, MaxRows>(tile, rows);
}

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class Panel>
Tile tile_of(const PackedMatrix& matrix, const LinearCall& call, int64_t first_row, int64_t first_panel) {
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
  tile.outputs = smaller(matrix.rows - output, kPanel * kMaxPanels);
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
  constexpr int kMaxFewRows = kWidenInRegisters < kMaxRows ? kWidenInRegisters : kMaxRows;
  if (matrix.column_scale != nullptr || matrix.columns % Panel::kColumns != 0) {
    const int64_t stride = (matrix.columns + Panel::kColumns - 1) / Panel::kColumns * Panel::kColumns;
    call.x = scaled_rows(matrix, call, stride);
    call.x_stride = stride;
  }
  const int64_t panels = (matrix.rows + kPanel - 1) / kPanel;
  for (int64_t p = 0; p < panels; p += kMaxPanels) {
    compute_panels<Panel, kMaxFewRows>(tile_of<Panel>(matrix, call, 0, p), smaller(panels - p, kMaxPanels), call.rows);
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
      Tile tile = tile_of<Panel>(matrix, call, first, p);
      if constexpr (Panel::kColumns > 1) {
        for (int64_t one = 0; one < count; ++one) {
          widen_panel<Panel>(matrix, tile.panels + kStepBytes * tile.steps * one,
                             call.scratch + kPanel * matrix.columns * one);
        }
        tile.panels = reinterpret_cast<const char*>(call.scratch);
        tile.steps = matrix.columns;
      }
      compute_panels<FloatPanel, kMaxRows>(tile, count, rows);
    }
  }
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
  call.rows <= kWidenInRegisters ? few_rows<Panel>(matrix, call) : many_rows<Panel>(matrix, call);
}

void linear(const PackedMatrix& matrix, const LinearCall& call) {
  if (matrix.row_major) return row_major_linear(matrix, call);
  switch (matrix.bits) {
    case Bits::kFloat:
      return many_rows<FloatPanel>(matrix, call);
    case Bits::kInt8:
      return integer_linear<Int8Panel>(matrix, call);
    case Bits::kInt4:
      return integer_linear<Int4Panel>(matrix, call);
  }
}
