#include "libafm/nn/embedding.h"

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "tests/nn/embedding_cases.h"
#include "tests/nn/gradient_check.h"

namespace afm::nn {
namespace {

constexpr double kLookupError = 3e-6;  // a few roundings of float32
constexpr double kDoubleError = 1e-13;

void check_output(const EmbeddingOutput& output, const EmbeddingOutput& expected, at::ScalarType dtype, double bound) {
  const auto check = [&](const at::Tensor& got, const at::Tensor& wanted) {
    REQUIRE(got.defined() == wanted.defined());
    if (!wanted.defined()) return;
    CHECK(got.scalar_type() == dtype);
    CHECK(got.sizes() == wanted.sizes());
    CHECK(relative_error(got, wanted) < bound);
    if (wanted.abs().sum().item<double>() > 0) CHECK(relative_error(got, wanted + 1e-3) > bound);  // it can fail
  };
  check(output.values, expected.values);
  check(output.latents, expected.latents);
  check(output.wide, expected.wide);
}

TEST_CASE("a lookup is what its loops over rows, fields and slots say, on both paths") {
  torch::manual_seed(1);
  for (const auto& [name, options] : embedding_cases()) {
    for (const int64_t rows : {0, 1, 40}) {
      INFO(name << ", rows " << rows);
      Embedding embedding = random_embedding(options);
      const at::Tensor ids = random_ids(options, rows);
      check_output(embedding->lookup(ids), reference_lookup(*embedding, ids), at::kFloat, kLookupError);
      embedding->to(at::kDouble);
      check_output(embedding->lookup(ids), reference_lookup(*embedding, ids), at::kDouble, kDoubleError);
    }
  }
}

TEST_CASE("tables and wide weights are what the parameters say, in every form") {
  torch::manual_seed(7);
  for (const auto& [name, options] : embedding_cases()) {
    INFO(name);
    const Embedding embedding = random_embedding(options);
    const ReferenceTables expected = reference_tables(*embedding);
    for (int64_t j = 0; j < embedding->field_count(); ++j) {
      const at::Tensor& table = expected.values[static_cast<std::size_t>(j)];
      CHECK(embedding->table(j).sizes() == table.sizes());
      CHECK(relative_error(embedding->table(j), table) < kLookupError);
    }
    const bool has_wide = options.wide && !(options.joint && options.basis == Basis::kNone);
    REQUIRE(embedding->wide_weights().defined() == has_wide);
    if (has_wide) CHECK(relative_error(embedding->wide_weights(), at::cat(expected.wide)) < kLookupError);
  }
}

TEST_CASE("ids may be int32 or int64 and lie anywhere") {
  torch::manual_seed(2);
  for (const auto& [name, options] : embedding_cases()) {
    INFO(name);
    Embedding embedding = random_embedding(options);
    const at::Tensor ids = random_ids(options, 40);
    const at::Tensor values = joined(embedding->lookup(ids));
    const at::Tensor wider = at::cat({ids, ids}, 1).narrow(1, ids.size(1), ids.size(1));
    const at::Tensor columns = ids.t().contiguous().t();
    for (const at::Tensor& same :
         {ids.to(at::kInt), wider, columns, columns.to(at::kInt), ids.repeat({2, 1}).narrow(0, 40, 40)}) {
      CHECK(at::equal(joined(embedding->lookup(same)), values));
    }
  }
}

TEST_CASE("an id out of range names field, id and range, in both precisions and integer types") {
  EmbeddingOptions options{.cardinalities = {957, 4}, .embedding_dim = 3, .slots = {1, 2}, .names = {"user", "genre"}};
  for (const std::vector<int64_t>& ranks : {std::vector<int64_t>{}, std::vector<int64_t>{2, 0}}) {
    options.ranks = ranks;
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      Embedding embedding(options);
      embedding->to(dtype);
      for (const auto type : {at::kInt, at::kLong}) {
        const auto refused = [&](int64_t slot, int64_t id, const std::string& sentence) {
          at::Tensor ids = torch::zeros({300, 3}, type);
          ids[200][slot] = id;
          CHECK_THROWS_MATCHES(embedding->lookup(ids), DataError, Catch::Matchers::Message(sentence));
        };
        refused(0, 957, "field 'user' has id 957, its ids are 0 to 956");
        refused(0, kEmptySlot, "field 'user' has id -1, its ids are 0 to 956");
        refused(2, 4, "field 'genre' has id 4, its ids are 0 to 3");
        refused(1, -2, "field 'genre' has id -2, its ids are 0 to 3");
        refused(0, 2147483647, "field 'user' has id 2147483647, its ids are 0 to 956");
      }
    }
  }
  Embedding unnamed(EmbeddingOptions{.cardinalities = {2, 2}});
  CHECK_THROWS_MATCHES(unnamed->lookup(torch::full({1, 2}, 2, at::kLong)), DataError,
                       Catch::Matchers::Message("field '0' has id 2, its ids are 0 to 1"));
}

TEST_CASE("a field may be empty where it is multi-valued, even with one slot, and nowhere else") {
  EmbeddingOptions options{.cardinalities = {4}, .embedding_dim = 2, .multi_valued = {true}, .wide = true};
  const at::Tensor empty = torch::full({2, 1}, kEmptySlot, at::kLong);
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    options.multi_valued = {true};
    Embedding embedding(options);
    embedding->to(dtype);
    CHECK(embedding->lookup(empty).values.abs().sum().item<double>() == 0);
    CHECK(embedding->lookup(empty).wide.abs().sum().item<double>() == 0);
    options.multi_valued = {false};
    Embedding single(options);
    single->to(dtype);
    CHECK_THROWS_MATCHES(single->lookup(empty), DataError,
                         Catch::Matchers::Message("field '0' has id -1, its ids are 0 to 3"));
  }
}

TEST_CASE("the check of ids on the CPU cannot be switched off") {
  Embedding embedding(EmbeddingOptions{.cardinalities = {3}});
  embedding->check_ids = false;
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    embedding->to(dtype);
    CHECK_THROWS_AS(embedding->lookup(torch::full({1, 1}, 3, at::kLong)), DataError);
  }
}

TEST_CASE("ids of a wrong shape or type are refused") {
  using Catch::Matchers::ContainsSubstring;
  using Catch::Matchers::MessageMatches;
  Embedding embedding(EmbeddingOptions{.cardinalities = {3, 3}});
  CHECK_THROWS_MATCHES(embedding->lookup(torch::zeros({4, 3}, at::kLong)), c10::Error,
                       MessageMatches(ContainsSubstring("Embedding: expected ids [B, 2], got [4, 3]")));
  CHECK_THROWS_MATCHES(embedding->lookup(torch::zeros({4, 2})), c10::Error,
                       MessageMatches(ContainsSubstring("expected ids of type int32 or int64, got Float")));
}

TEST_CASE("the output hook gets ids and values") {
  Embedding embedding(EmbeddingOptions{.cardinalities = {3, 3}, .wide = true});
  at::Tensor seen_ids, seen_values;
  embedding->set_output_hook([&](const at::Tensor& ids, const at::Tensor& values) {
    seen_ids = ids;
    seen_values = values;
  });
  const at::Tensor ids = torch::ones({2, 2}, at::kInt);
  const at::Tensor values = embedding->forward(ids);
  CHECK(seen_ids.is_same(ids));
  CHECK(at::equal(seen_values, values));
  embedding->set_output_hook({});
  seen_ids = at::Tensor();
  embedding->forward(ids);
  CHECK_FALSE(seen_ids.defined());

  Embedding folded(EmbeddingOptions{.cardinalities = {3, 3}, .ranks = {2, 1}, .basis = Basis::kNone});
  folded->set_output_hook([&](const at::Tensor&, const at::Tensor& latents) { seen_values = latents; });
  CHECK(at::equal(folded->forward(ids), seen_values));
  CHECK(seen_values.sizes() == at::IntArrayRef{2, 3});
}

}  // namespace
}  // namespace afm::nn
