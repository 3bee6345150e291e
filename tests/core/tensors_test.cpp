#include "libafm/core/tensors.h"

#include <stdexcept>

#include <fmt/format.h>
#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace afm {
namespace {

using testing::message_of;
using testing::TemporaryFolder;
using testing::write_bytes;

// Same dtype, shape and bits, so that NaN equals NaN.
bool identical(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  return at::equal(a.contiguous().view({-1}).view(at::kByte), b.contiguous().view({-1}).view(at::kByte));
}

TensorMap tensors_of_every_dtype() {
  TensorMap tensors;
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                           at::kChar, at::kByte, at::kBool}) {
    const std::string name = at::toString(dtype);
    tensors[name + ".matrix"] = torch::randint(0, 100, {3, 5}).to(dtype);
    tensors[name + ".scalar"] = torch::ones({}).to(dtype);
    tensors[name + ".empty"] = torch::zeros({0, 4}).to(dtype);
  }
  return tensors;
}

TEST_CASE("tensors of every dtype are read as they were saved") {
  const TemporaryFolder folder;
  torch::manual_seed(1);
  auto tensors = tensors_of_every_dtype();
  tensors["odd numbers"] = torch::tensor({NAN, -NAN, INFINITY, -0.0F, 1e-45F});
  save_tensors(folder / "t", {{"kind", "test"}}, tensors);
  const auto file = SafetensorsFile::open(folder / "t");
  file.verify();
  const auto read = read_tensors(file);
  REQUIRE(read.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    CHECK(identical(read.at(name), tensor));
    CHECK(identical(view_tensor(file, name), tensor));
  }
  CHECK_FALSE(identical(read.at("Float.matrix"), tensors.at("Float.matrix") + 1));
}

TEST_CASE("views and tensors of any layout are saved by value") {
  const TemporaryFolder folder;
  torch::manual_seed(2);
  const auto base = torch::randn({4, 6});
  const TensorMap tensors = {{"transposed", base.t()},
                             {"column", base.select(1, 2)},
                             {"expanded", base.select(0, 0).expand({3, 6})},
                             {"parameter", base.clone().set_requires_grad(true)},
                             {"negated", torch::_neg_view(base)}};
  save_tensors(folder / "t", {}, tensors);
  const auto file = SafetensorsFile::open(folder / "t");
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    CHECK(at::equal(view_tensor(file, name), tensor.detach()));
    CHECK_FALSE(view_tensor(file, name).requires_grad());
  }
  save_tensors(folder / "s", {}, {{"sparse", base.to_sparse()}});
  CHECK(at::equal(view_tensor(SafetensorsFile::open(folder / "s"), "sparse"), base));
}

TEST_CASE("a view shares the mapping and keeps it alive") {
  const TemporaryFolder folder;
  const auto tensor = torch::arange(10000);
  save_tensors(folder / "t", {}, {{"a", tensor}});
  at::Tensor view;
  {
    const auto file = SafetensorsFile::open(folder / "t");
    view = view_tensor(file, "a");
    CHECK(view.const_data_ptr() == file.at("a").bytes.data());
    CHECK_FALSE(read_tensors(file).at("a").const_data_ptr() == file.at("a").bytes.data());
  }
  std::filesystem::remove(folder / "t");
  CHECK(at::equal(view, tensor));
}

TEST_CASE("a tensor that a foreign writer did not align is copied") {
  const TemporaryFolder folder;
  std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                       R"("b":{"dtype":"I32","shape":[2],"data_offsets":[1,9]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  write_bytes(folder / "t", std::string{static_cast<char>(header.size()), 0, 0, 0, 0, 0, 0, 0} + header +
                                std::string{9, 1, 0, 0, 0, 2, 1, 0, 0});
  const auto file = SafetensorsFile::open(folder / "t");
  const auto tensor = view_tensor(file, "b");
  CHECK(at::equal(tensor, torch::tensor({1, 258}, at::kInt)));
  CHECK(reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % 4 == 0);
  CHECK(at::equal(read_tensors(file).at("b"), tensor));
}

TEST_CASE("booleans that are neither 0 nor 1 are refused") {
  const TemporaryFolder folder;
  const std::vector<std::byte> bytes = {std::byte{1}, std::byte{2}};
  write_safetensors(folder / "t", {}, {{"mask", {DType::kBool, {2}, bytes}}});
  const auto file = SafetensorsFile::open(folder / "t");
  CHECK(message_of<FormatError>([&] { view_tensor(file, "mask"); }) ==
        fmt::format("tensor 'mask' of '{}' has a boolean that is neither 0 nor 1", (folder / "t").string()));
}

TEST_CASE("tensors that a file cannot hold are refused by name") {
  const TemporaryFolder folder;
  CHECK(message_of<std::invalid_argument>([&] {
          save_tensors(folder / "t", {}, {{"w", at::Tensor()}});
        }) == "tensor 'w' must be defined");
  const auto complex = torch::zeros({2}, at::kComplexFloat);
  CHECK(message_of<std::invalid_argument>([&] {
          save_tensors(folder / "t", {}, {{"w", complex}});
        }) == "tensor 'w' must have a dtype that a file can hold, got ComplexFloat");
  CHECK(folder.file_count() == 0);
}

}  // namespace
}  // namespace afm
