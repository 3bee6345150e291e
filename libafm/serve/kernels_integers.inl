// The first `count` integers of a table's row as floats, one by one: for instruction sets that do not load a part of a
// register. Included where AFM_INLINE, Lanes and load() are the instruction set's own.

AFM_INLINE Lanes int8_first(const int8_t* from, int64_t count) {
  float lanes[16] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
  return load(lanes);
}
AFM_INLINE Lanes int4_first(const uint8_t* from, bool odd, int64_t count) {
  float lanes[16] = {};
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = odd ? i + 1 : i;
    lanes[i] = static_cast<float>((((from[at / 2] >> (at % 2 == 0 ? 0 : 4)) & 15) ^ 8) - 8);
  }
  return load(lanes);
}
