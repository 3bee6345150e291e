#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "libafm/metrics/metrics.h"

using Catch::Matchers::WithinAbs;

TEST_CASE("the share of unknown values is told for each field, over the values that there are") {
  afm::Schema schema;
  schema.fields = {{.name = "user", .cardinality = 10},
                   {.name = "price", .kind = afm::FieldKind::kNumeric},
                   {.name = "genres", .kind = afm::FieldKind::kMulti, .cardinality = 5, .max_values = 3},
                   {.name = "tags", .kind = afm::FieldKind::kMulti, .cardinality = 5, .max_values = 1}};
  const auto ids =
      torch::tensor({{0, 1, 0, -1, -1}, {3, 2, -1, -1, -1}, {0, 0, 0, 4, -1}, {9, -1, -1, -1, -1}}, torch::kInt32);
  const auto dataset = afm::Dataset::from_tensors(schema, {ids, torch::zeros({4, 1}), torch::zeros({4})});
  const auto shares = afm::unknown_shares(dataset);
  REQUIRE(shares.size() == 3);
  CHECK(shares[0].field == "user");
  CHECK(shares[0].share == 0.5);
  CHECK(shares[1].field == "genres");
  CHECK_THAT(shares[1].share, WithinAbs(3.0 / 6.0, 1e-15));
  CHECK(shares[2].field == "tags");
  CHECK(shares[2].share == 0.0);
}
