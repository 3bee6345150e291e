#include "libafm/serve/scorer.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "libafm/core/error.h"
#include "tests/core/temporary_folder.h"
#include "tests/serve/model_files.h"

namespace {

std::atomic<int64_t> allocations = 0;

}  // namespace

// Counts, to show that scoring does not allocate. Not inlined: GCC takes a free() that it sees for the wrong partner.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto step = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(step, (size + step) / step * step)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace afm::serve {
namespace {

using afm::testing::message_of;
using afm::testing::TemporaryFolder;
using testing::Rows;

constexpr float kTolerance = 1e-5F;  // float32 sums of some ten terms

std::vector<float> logits_of(const Scorer& scorer, const Rows& rows) {
  std::vector<float> logits(static_cast<std::size_t>(rows.count));
  scorer.score(rows.ids.data(), rows.dense.data(), rows.count, logits.data());
  return logits;
}

std::vector<Simd> available() {
  std::vector<Simd> all;
  for (const Simd simd : {Simd::kPortable, Simd::kAvx2, Simd::kAvx512}) {
    if (simd <= best_simd()) all.push_back(simd);
  }
  return all;
}

bool are_close(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= kTolerance * (1 + std::abs(b[i])))) return false;
  }
  return a.size() == b.size();
}

TEST_CASE("a dense DeepFM scores as its definition in float64, on every instruction set") {
  const TemporaryFolder folder;
  const auto parts = testing::deepfm_parts(GENERATE(1, 2, 3));
  parts.write(folder / "model");
  const auto rows = testing::random_rows(GENERATE(1, 2, 5, 300));
  const auto expected = testing::deepfm_logits(parts, rows);
  for (const Simd simd : available()) {
    const auto scorer = Scorer::open(folder / "model", {.simd = simd});
    CHECK(scorer.simd() == simd);
    CHECK(are_close(logits_of(scorer, rows), {expected.begin(), expected.end()}));
  }
}

TEST_CASE("a weight that changes changes the scores") {
  const TemporaryFolder folder;
  auto parts = testing::deepfm_parts();
  const auto rows = testing::random_rows(20);
  const auto expected = testing::deepfm_logits(parts, rows);
  const auto* const name = GENERATE("embedding.weight", "wide_dense.weight", "bias", "mlp.layers.1.weight",
                                    "mlp.norms.0.running_var", "mlp.norms.1.bias", "mlp.head.weight");
  auto values = testing::values_of(parts.tensors[name]);
  for (float& value : values) value *= 1.1F;
  parts.tensors[name] = testing::floats_of(parts.tensors[name].shape, values);
  parts.write(folder / "model");
  CHECK_FALSE(are_close(logits_of(Scorer::open(folder / "model"), rows), {expected.begin(), expected.end()}));
}

TEST_CASE("probabilities are the logistic function of logits") {
  const TemporaryFolder folder;
  testing::deepfm_parts().write(folder / "model");
  const auto scorer = Scorer::open(folder / "model");
  const auto rows = testing::random_rows(9);
  const auto logits = logits_of(scorer, rows);
  std::vector<float> probabilities(9);
  scorer.probabilities(rows.ids.data(), rows.dense.data(), rows.count, probabilities.data());
  for (std::size_t i = 0; i < 9; ++i) {
    CHECK_THAT(probabilities[i], Catch::Matchers::WithinAbs(1 / (1 + std::exp(-logits[i])), 1e-6));
  }
}

TEST_CASE("a scorer says what it is") {
  const TemporaryFolder folder;
  testing::folded_dcn_parts().write(folder / "model");
  const auto scorer = Scorer::open(folder / "model");
  CHECK(scorer.model() == "dcn");
  CHECK(scorer.schema() == testing::click_schema());
  CHECK(scorer.plan().at("embedding").bits == Bits::kInt8);
  CHECK(scorer.slot_count() == testing::kSlots);
  CHECK(scorer.dense_count() == testing::kDense);
  CHECK(scorer.golden_rows() == 0);
  CHECK(scorer.file_bytes() == static_cast<int64_t>(std::filesystem::file_size(folder / "model")));
  CHECK(scorer.prepared_bytes() > 0);
}

TEST_CASE("an id out of range is refused with field, id and cardinality") {
  const TemporaryFolder folder;
  testing::deepfm_parts().write(folder / "model");
  const auto scorer = Scorer::open(folder / "model");
  auto rows = testing::random_rows(200);
  const auto refusal = [&](std::size_t at, int32_t id) {
    auto changed = rows;
    changed.ids[at] = id;
    return message_of<DataError>([&] { logits_of(scorer, changed); });
  };
  CHECK(refusal(0, 7) == "field 'user' has id 7, its ids are 0 to 6");
  CHECK(refusal(0, -1) == "field 'user' has id -1, its ids are 0 to 6");
  CHECK(refusal(150 * testing::kSlots + 2, -2) == "field 'genres' has id -2, its ids are 0 to 4");
  CHECK(refusal(199 * testing::kSlots + 4, 1 << 30) == "field 'item' has id 1073741824, its ids are 0 to 3");
}

TEST_CASE("scoring allocates nothing after a thread's first call") {
  const TemporaryFolder folder;
  const bool folded = GENERATE(false, true);
  (folded ? testing::folded_dcn_parts() : testing::deepfm_parts()).write(folder / "model");
  const auto scorer = Scorer::open(folder / "model");
  const auto candidates = scorer.candidates(std::vector<int64_t>{0, 1});
  const auto rows = testing::random_rows(300);
  std::vector<float> logits(300);
  std::vector<int32_t> items(300 * 4, 0);
  const auto score_all = [&] {
    for (const int64_t count : {1, 7, 300}) {
      scorer.score(rows.ids.data(), rows.dense.data(), count, logits.data());
      candidates.score(rows.ids.data(), rows.dense.data(), items.data(), rows.dense.data(), count, logits.data());
    }
  };
  score_all();
  const int64_t before = allocations;
  score_all();
  CHECK(allocations == before);
}

TEST_CASE("many threads may use one scorer") {
  const TemporaryFolder folder;
  testing::deepfm_parts().write(folder / "model");
  const auto scorer = std::make_unique<Scorer>(Scorer::open(folder / "model"));
  const auto rows = testing::random_rows(150);
  const auto expected = logits_of(*scorer, rows);
  std::atomic<int> equal = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, copy = *scorer] {
        for (int round = 0; round < 20; ++round) equal += logits_of(copy, rows) == expected;
      });
    }
  }
  CHECK(equal == 80);
}

TEST_CASE("a copy outlives its scorer") {
  const TemporaryFolder folder;
  testing::folded_dcn_parts().write(folder / "model");
  auto scorer = std::make_unique<Scorer>(Scorer::open(folder / "model"));
  const auto rows = testing::random_rows(3);
  const auto expected = logits_of(*scorer, rows);
  const Scorer copy = *scorer;
  scorer.reset();
  CHECK(logits_of(copy, rows) == expected);
}

}  // namespace
}  // namespace afm::serve
