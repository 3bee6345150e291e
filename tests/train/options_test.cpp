#include <limits>
#include <stdexcept>
#include <string>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "libafm/train/check_options.h"

using afm::TrainOptions;
using Catch::Matchers::Message;

namespace {

void check_refused(const TrainOptions& options, const std::string& sentence) {
  CHECK_THROWS_MATCHES(afm::check_options(options), std::invalid_argument, Message("TrainOptions." + sentence));
}

}  // namespace

TEST_CASE("the default training options are good") { CHECK_NOTHROW(afm::check_options({})); }

TEST_CASE("a training option that breaks its rule is refused by name, rule and value") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  check_refused({.epochs = 0}, "epochs must be at least 1, got 0");
  check_refused({.batch_size = 1}, "batch_size must be at least 2, got 1");
  check_refused({.learning_rate = 0}, "learning_rate must be above 0 and finite, got 0");
  check_refused({.learning_rate = nan}, "learning_rate must be above 0 and finite, got nan");
  check_refused({.learning_rate = inf}, "learning_rate must be above 0 and finite, got inf");
  check_refused({.lr_decay = 1.5}, "lr_decay must be in (0, 1], got 1.5");
  check_refused({.lr_decay = nan}, "lr_decay must be in (0, 1], got nan");
  check_refused({.patience = -1}, "patience must be at least 0, got -1");
  check_refused({.embedding_l2 = -0.1}, "embedding_l2 must be at least 0 and finite, got -0.1");
  check_refused({.mlp_l2 = nan}, "mlp_l2 must be at least 0 and finite, got nan");
  check_refused({.distillation = -1}, "distillation must be at least 0 and finite, got -1");
  check_refused({.temperature = 0}, "temperature must be above 0 and finite, got 0");
  check_refused({.checkpoint_seconds = 0}, "checkpoint_seconds must be above 0 and finite, got 0");
}

TEST_CASE("a checkpoint that cannot be written is refused before training") {
  check_refused({.resume = true}, "resume must be false without a checkpoint, got true");
  check_refused({.checkpoint = "no/such/folder/a.safetensors"},
                "checkpoint must be a file in a folder that exists, got no/such/folder/a.safetensors");
  check_refused({.checkpoint = "/"}, "checkpoint must be a file in a folder that exists, got /");
  CHECK_NOTHROW(afm::check_options({.checkpoint = "a.safetensors"}));
}

TEST_CASE("a device is cpu, cuda or cuda:N, and of this machine") {
  CHECK(afm::device_of("cpu") == at::Device(at::kCPU));
  for (const char* name : {"gpu", "", "meta", "cpu:x", "CPU"}) {
    check_refused({.device = name}, std::string("device must be cpu, cuda or cuda:N, got ") + name);
  }
  CHECK_THROWS_AS(afm::device_of("cuda:99"), std::invalid_argument);
}
