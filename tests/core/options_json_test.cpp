#include "libafm/core/options_json.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <stdexcept>

#include <fmt/format.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "tests/core/temporary_folder.h"

namespace outside {

enum class Cross { kVector, kMatrix };

constexpr std::array<std::string_view, 2> enum_names(std::type_identity<Cross>) { return {"vector", "matrix"}; }

struct ToyOptions {
  int64_t width = 10;
  std::vector<int64_t> hidden = {400, 400};
  double dropout = 0.0;
  bool batch_norm = true;
  std::string name = "toy";
  Cross cross = Cross::kVector;
  std::optional<int64_t> rank = std::nullopt;
  std::optional<double> energy = std::nullopt;

  bool operator==(const ToyOptions&) const = default;
};

constexpr auto field_list(std::type_identity<ToyOptions>) {
  return std::make_tuple(
      afm::field("width", &ToyOptions::width, "Width."), afm::field("hidden", &ToyOptions::hidden, "Hidden widths."),
      afm::field("dropout", &ToyOptions::dropout, "Share of units dropped."),
      afm::field("batch_norm", &ToyOptions::batch_norm, "Normalise."), afm::field("name", &ToyOptions::name, "Name."),
      afm::field("cross", &ToyOptions::cross, "Form of the cross layers."),
      afm::field("rank", &ToyOptions::rank, "Rank."), afm::field("energy", &ToyOptions::energy, "Energy."));
}

}  // namespace outside

namespace afm {
namespace {

using nlohmann::json;
using outside::Cross;
using outside::ToyOptions;
using testing::message_of;

struct Case {
  std::string given, sentence;
};

ToyOptions random_options(std::mt19937& random) {
  const auto integer = [&] { return static_cast<int64_t>((uint64_t{random()} << 32) | random()); };
  const auto number = [&] {
    return std::ldexp(static_cast<double>(integer()), static_cast<int>(random() % 1800) - 950);
  };
  ToyOptions options;
  options.width = integer();
  options.hidden.resize(random() % 4);
  for (auto& width : options.hidden) width = integer();
  options.dropout = number();
  options.batch_norm = random() % 2 == 0;
  options.name = std::to_string(integer()) + ",\"\\ none";
  options.cross = random() % 2 == 0 ? Cross::kVector : Cross::kMatrix;
  if (random() % 2 == 0) options.rank = integer();
  if (random() % 2 == 0) options.energy = number();
  return options;
}

TEST_CASE("the JSON of options holds every field, defaults included") {
  const auto expected = json::parse(R"({"width": 10, "hidden": [400, 400], "dropout": 0.0, "batch_norm": true,
                                        "name": "toy", "cross": "vector", "rank": null, "energy": null})");
  CHECK(to_json(ToyOptions{}) == expected);
}

TEST_CASE("options survive JSON and text unchanged") {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const auto options = random_options(random);
    CHECK(from_json<ToyOptions>(json::parse(to_json(options).dump()), "ToyOptions") == options);
    ToyOptions from_text;
    for (const auto& field : describe(options)) {
      CHECK(set_from_text(from_text, field.name, field.value, "ToyOptions"));
    }
    CHECK(from_text == options);
    CHECK_FALSE(from_text == ToyOptions{});
  }
}

TEST_CASE("fields that the JSON lacks keep their defaults") {
  const auto options =
      from_json<ToyOptions>(json::parse(R"({"dropout": 1, "cross": "matrix", "rank": 4})"), "ToyOptions");
  CHECK(options == ToyOptions{.dropout = 1.0, .cross = Cross::kMatrix, .rank = 4});
}

TEST_CASE("JSON that breaks a rule is refused with the field, the rule and the value") {
  const auto [given, sentence] = GENERATE(
      Case{R"([1])", "ToyOptions must be a JSON object, got [1]"},
      Case{R"({"cros": 1})",
           "ToyOptions has no field 'cros'; its fields are: width, hidden, dropout, batch_norm, name, "
           "cross, rank, energy"},
      Case{R"({"dropout": "abc"})", "ToyOptions.dropout must be a number, got \"abc\""},
      Case{R"({"dropout": "nan"})", "ToyOptions.dropout must be a number, got \"nan\""},
      Case{R"({"dropout": true})", "ToyOptions.dropout must be a number, got true"},
      Case{R"({"dropout": null})", "ToyOptions.dropout must be a number, got null"},
      Case{R"({"width": 3.5})", "ToyOptions.width must be an integer, got 3.5"},
      Case{R"({"width": true})", "ToyOptions.width must be an integer, got true"},
      Case{R"({"width": 9223372036854775808})", "ToyOptions.width must be an integer, got 9223372036854775808"},
      Case{R"({"hidden": 400})", "ToyOptions.hidden must be a list of integers, got 400"},
      Case{R"({"hidden": [4, 0.5]})", "ToyOptions.hidden must be a list of integers, got [4,0.5]"},
      Case{R"({"hidden": [9223372036854775808]})",
           "ToyOptions.hidden must be a list of integers, got [9223372036854775808]"},
      Case{R"({"batch_norm": 1})", "ToyOptions.batch_norm must be true or false, got 1"},
      Case{R"({"name": 1})", "ToyOptions.name must be text, got 1"},
      Case{R"({"cross": "tensor"})", "ToyOptions.cross must be one of vector, matrix, got \"tensor\""},
      Case{R"({"cross": 0})", "ToyOptions.cross must be one of vector, matrix, got 0"},
      Case{R"({"rank": "none"})", "ToyOptions.rank must be an integer, got \"none\""},
      Case{R"({"energy": []})", "ToyOptions.energy must be a number, got []"});
  CHECK(message_of<std::invalid_argument>([&] { from_json<ToyOptions>(json::parse(given), "ToyOptions"); }) ==
        sentence);
}

TEST_CASE("numbers that are not finite are refused") {
  const auto refusal = [](double value) {
    return message_of<std::invalid_argument>([&] { from_json<ToyOptions>({{"dropout", value}}, "ToyOptions"); });
  };
  CHECK(refusal(std::numeric_limits<double>::quiet_NaN()) == "ToyOptions.dropout must be a finite number, got \"nan\"");
  CHECK(refusal(std::numeric_limits<double>::infinity()) == "ToyOptions.dropout must be a finite number, got \"inf\"");
}

TEST_CASE("fields are set from command line text") {
  ToyOptions options{.rank = 3};
  for (const auto& [name, text] : std::vector<std::pair<std::string, std::string>>{{"width", "-7"},
                                                                                   {"hidden", "400,300,200"},
                                                                                   {"dropout", ".25"},
                                                                                   {"batch_norm", "false"},
                                                                                   {"name", "true"},
                                                                                   {"cross", "matrix"},
                                                                                   {"rank", "none"},
                                                                                   {"energy", "1e-3"}}) {
    CHECK(set_from_text(options, name, text, "ToyOptions"));
  }
  CHECK(options == ToyOptions{-7, {400, 300, 200}, 0.25, false, "true", Cross::kMatrix, std::nullopt, 1e-3});
  CHECK(set_from_text(options, "hidden", "", "ToyOptions"));
  CHECK(options.hidden.empty());
}

TEST_CASE("a field that does not exist is not set") {
  ToyOptions options;
  CHECK_FALSE(set_from_text(options, "cros", "1", "ToyOptions"));
  CHECK(options == ToyOptions{});
}

TEST_CASE("text that does not parse is refused with the field, the rule and the value") {
  const auto [field, text, sentence] = GENERATE(table<std::string, std::string, std::string>(
      {{"dropout", "abc", "ToyOptions.dropout must be a number, got \"abc\""},
       {"dropout", "nan", "ToyOptions.dropout must be a number, got \"nan\""},
       {"dropout", "inf", "ToyOptions.dropout must be a number, got \"inf\""},
       {"dropout", "1e999", "ToyOptions.dropout must be a number, got \"1e999\""},
       {"dropout", "0.2x", "ToyOptions.dropout must be a number, got \"0.2x\""},
       {"dropout", "", "ToyOptions.dropout must be a number, got \"\""},
       {"dropout", "none", "ToyOptions.dropout must be a number, got \"none\""},
       {"width", "3.5", "ToyOptions.width must be an integer, got 3.5"},
       {"width", "99999999999999999999", "ToyOptions.width must be an integer, got 1e+20"},
       {"hidden", "400,,400", "ToyOptions.hidden must be a list of integers, got [400,\"\",400]"},
       {"hidden", "400,", "ToyOptions.hidden must be a list of integers, got [400,\"\"]"},
       {"batch_norm", "yes", "ToyOptions.batch_norm must be true or false, got \"yes\""},
       {"cross", "Vector", "ToyOptions.cross must be one of vector, matrix, got \"Vector\""},
       {"rank", "1.5", "ToyOptions.rank must be an integer, got 1.5"}}));
  ToyOptions options;
  CHECK(message_of<std::invalid_argument>([&] { set_from_text(options, field, text, "ToyOptions"); }) == sentence);
}

TEST_CASE("fields are described by name, type, value and documentation") {
  const auto fields = describe(ToyOptions{.rank = 4});
  std::string text;
  for (const auto& [name, type, value, doc] : fields) text += fmt::format("{}:{}={} ", name, type, value);
  CHECK(text ==
        "width:integer=10 hidden:integers=400,400 dropout:number=0.0 batch_norm:boolean=true name:text=toy "
        "cross:vector|matrix=vector rank:integer=4 energy:number=none ");
  CHECK(fields[0].doc == "Width.");
}

}  // namespace
}  // namespace afm
