#include "libafm/serve/request.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "libafm/core/safetensors.h"
#include "libafm/serve/afm_serve.h"
#include "libafm/serve/pack.h"
#include "libafm/serve/scorer.h"
#include "tests/core/temporary_folder.h"
#include "tests/serve/vocabulary_files.h"

namespace afm::serve {
namespace {

using namespace std::string_literals;
using afm::testing::message_of;
using afm::testing::TemporaryFolder;
using testing::kDense;
using testing::kSlots;

// A packed DeepFM on click_schema(): user, age, genres, item, price.
struct Packed {
  Packed() {
    testing::deepfm_parts().write(folder / "model");
    testing::write_vocabulary(folder / "clicks",
                              testing::vocabulary_parts(testing::click_schema(), testing::click_values()));
    pack(folder / "model", folder / "clicks", folder / "packed");
  }
  SafetensorsFile file() const { return SafetensorsFile::open(folder / "packed"); }

  TemporaryFolder folder;
};

struct Encoded {
  std::vector<int32_t> ids = std::vector<int32_t>(kSlots, 77);
  std::vector<float> dense = std::vector<float>(kDense, 77.0F);
  bool operator==(const Encoded&) const = default;
};

// The transform of click_schema's numbers.
float log_of(double value) { return static_cast<float>(std::copysign(std::log1p(std::abs(value)), value)); }

class Requests {
 public:
  Encoded of(const std::vector<Value>& values) const {
    Encoded encoded;
    encoder_.encode(values, encoded.ids.data(), encoded.dense.data());
    return encoded;
  }
  Encoded json(std::string_view text) const {
    Encoded encoded;
    encoder_.encode_json(text, encoded.ids.data(), encoded.dense.data());
    return encoded;
  }
  std::string refusal(std::string_view text) const {
    return message_of<DataError>([&] { json(text); });
  }

 private:
  Packed packed_;
  RequestEncoder encoder_{packed_.file(), testing::click_schema()};
};

TEST_CASE("values of every kind become ids and dense features") {
  const Requests requests;
  CHECK(requests.of({"u1", 3.0, "noir|drama", "b", -0.5}) == Encoded{{1, 2, 1, -1, 3}, {log_of(3.0), log_of(-0.5)}});
  CHECK(requests.of({"\0a"s, "2.5", "||9||odd|noir|drama", "é", "-1e3"}) ==
        Encoded{{4, 4, 0, 2, 1}, {log_of(2.5), log_of(-1000)}});
  // A number is the text that a table would hold.
  CHECK(requests.of({7.0, 0.0, 9.0, std::nan(""), 0.0}) == Encoded{{2, 4, -1, -1, 0}, {0.0F, 0.0F}});
  CHECK(requests.of({2.5, 0.0, Value(), Value(), 0.0}) == Encoded{{3, -1, -1, -1, 0}, {0.0F, 0.0F}});
  // Unknown, empty, missing.
  CHECK(requests.of({"u", std::nan(""), "", "", Value()}) == Encoded{{0, -1, -1, -1, 0}, {0.0F, 0.0F}});
}

TEST_CASE("a JSON object is read by field names, in any order") {
  const Requests requests;
  const Encoded all = requests.of({"u1", 3.0, "noir|drama", "b", -0.5});
  CHECK(requests.json(R"({"price": -0.5, "user": "u1", "age": 3, "item": "b", "genres": "noir|drama"})") == all);
  CHECK(requests.json(
            R"({"price": "-0.5", "user": "u1", "age": "3", "item": "\u0062", "genres": ["noir", "drama"]})") == all);
  CHECK(requests.json("{}") == requests.of({Value(), Value(), Value(), Value(), Value()}));
  CHECK(requests.json(R"({"user": null, "genres": [], "age": null})") == requests.json("{}"));
  CHECK(requests.json(R"({"user": 7, "genres": 9})") == requests.of({7.0, Value(), 9.0, Value(), Value()}));
  CHECK(requests.json(R"({"user": true, "age": true})").ids[0] == 6);
  CHECK(requests.json(R"({"user": 2.50})").ids[0] == 0);  // as it is written: no value of the table
  CHECK(requests.json(R"({"genres": ["noir|9", null, 9, "drama", "noir"]})").ids ==
        std::vector<int32_t>{0, 2, 4, 4, 0});
}

TEST_CASE("what is no request is refused by name") {
  const Requests requests;
  CHECK(message_of<DataError>([&] { requests.of({"u1"}); }) ==
        "a request must have 5 values, one per field of the schema, got 1");
  CHECK(requests.refusal(R"({"usr": 1})") == "a request has a field 'usr' that the schema lacks");
  CHECK(requests.refusal(R"({"user": 1, "age": 2, "user": 1})") == "a request has the field 'user' twice");
  CHECK(requests.refusal(R"({"age": "old"})") ==
        "field 'age' must be a finite number, or empty where it is missing, got 'old'");
  CHECK(requests.refusal(R"({"age": "3 "})") ==
        "field 'age' must be a finite number, or empty where it is missing, got '3 '");
  CHECK(requests.refusal(R"({"user": ["u1"]})") == "field 'user' must be a text or a number, got a list");
  CHECK(requests.refusal(R"({"genres": [["noir"]]})") ==
        "field 'genres' must be a text or a number, or a list of them, got a list");
  CHECK(requests.refusal(R"({"genres": {"a": 1}})") ==
        "field 'genres' must be a text or a number, or a list of them, got an object");
  for (const char* text : {"", "[1]", "3", "null", "\"u1\"", "{", R"({"user": })", "{} {}", "{\"user\": \"\xff\"}"}) {
    CAPTURE(text);
    CHECK(requests.refusal(text).starts_with("a request must be a JSON object"));
  }
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(message_of<DataError>([&] {
          requests.of({"", infinity, "", "", 0.0});
        }) == "field 'age' must be finite, got inf");
  CHECK(message_of<DataError>([&] {
          requests.of({"", "-inf", "", "", 0.0});
        }) == "field 'age' must be finite, got -inf");
}

TEST_CASE("a packed file scores raw values as its encoded rows") {
  const Packed packed;
  const Scorer scorer = Scorer::open(packed.folder / "packed");
  REQUIRE(scorer.encoder() != nullptr);
  const Encoded row = Requests().of({"u1", 3.0, "noir|drama", "b", -0.5});
  float expected = 0;
  scorer.probabilities(row.ids.data(), row.dense.data(), 1, &expected);
  CHECK(scorer.score(std::vector<Value>{"u1", 3.0, "noir|drama", "b", -0.5}) == expected);
  CHECK(scorer.score_json(R"({"user": "u1", "age": 3, "genres": "noir|drama", "item": "b", "price": -0.5})") ==
        expected);
  CHECK(scorer.score_json("{}") != expected);
}

TEST_CASE("a file that is not packed has no encoder, and says how to get one") {
  const Packed packed;
  const Scorer scorer = Scorer::open(packed.folder / "model");
  CHECK(scorer.encoder() == nullptr);
  CHECK(message_of<DataError>([&] { scorer.score_json("{}"); }) ==
        "'" + (packed.folder / "model").string() +
            "' holds no vocabulary, so it cannot score raw values; pack it with its dataset folder (afm pack)");
}

TEST_CASE("the C interface scores raw values, and tells what is wrong with them") {
  const Packed packed;
  afm_scorer* scorer = afm_serve_open((packed.folder / "packed").c_str());
  REQUIRE(scorer != nullptr);
  const char* request = R"({"user": "u1", "age": 3, "genres": ["noir"], "price": -0.5})";
  float probability = -1;
  CHECK(afm_serve_score_json(scorer, request, &probability) == 0);
  CHECK(probability == Scorer::open(packed.folder / "packed").score_json(request));
  CHECK(afm_serve_score_json(scorer, R"({"usr": 1})", &probability) == -1);
  CHECK(afm_serve_last_error() == "a request has a field 'usr' that the schema lacks"s);
  CHECK(afm_serve_score_json(scorer, nullptr, &probability) == -1);
  CHECK(afm_serve_last_error() == "the request must not be null"s);
  CHECK(afm_serve_score_json(nullptr, request, &probability) == -1);
  afm_serve_close(scorer);
}

TEST_CASE("packing again, in place, gives the same file") {
  const Packed packed;
  const std::string bytes = afm::testing::read_bytes(packed.folder / "packed");
  pack(packed.folder / "packed", packed.folder / "clicks", packed.folder / "packed");
  CHECK(afm::testing::read_bytes(packed.folder / "packed") == bytes);
}

}  // namespace
}  // namespace afm::serve
