// load_requests MODEL DATASET [REQUESTS [THREADS]]: a scorer under load, of which 1 % is malformed, against LibTorch's
// logits of the same rows. Exit code 1 when a request was lost or an answer was wrong.
//
//   ninja -C build load_requests
//   build/tests/serve/load_requests model.safetensors clicks/ 10000000 8

#include <algorithm>
#include <cstdio>
#include <string>

#include "benchmarks/load_rows.h"
#include "benchmarks/load_run.h"
#include "libafm/serve/pack.h"
#include "models/zoo.h"
#include "tests/core/temporary_folder.h"

namespace {

constexpr int64_t kRows = 20'000;
constexpr double kMegabyte = 1 << 20;

void print(const afm::load::LoadResult& result, const afm::load::LoadOptions& options) {
  std::printf("requests %ld from %d threads in %.1f s: %.0f a second, %.0f rows a second\n", options.requests,
              options.threads, result.seconds, static_cast<double>(options.requests) / result.seconds,
              static_cast<double>(result.rows) / result.seconds);
  std::printf("malformed %ld, refused %ld, answered %ld, lost %ld\n", result.malformed, result.refused, result.answered,
              options.requests - result.refused - result.answered);
  std::printf("answered or refused wrongly %ld, wrong answers %ld, worst distance from LibTorch %.2g\n",
              result.answered_wrongly, result.wrong, result.worst);
  std::printf("resident memory at each tenth, MB:");
  for (const int64_t bytes : result.memory) std::printf(" %.2f", static_cast<double>(bytes) / kMegabyte);
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: load_requests MODEL DATASET [REQUESTS [THREADS]]\n");
    return 2;
  }
  afm::load::LoadOptions options;
  if (argc > 3) options.requests = std::stoll(argv[3]);
  if (argc > 4) options.threads = std::stoi(argv[4]);
  const std::filesystem::path dataset = argv[2];
  const auto model = afm::models::load_model(argv[1]);
  const auto encoder = afm::Encoder::open(dataset / "vocabulary.safetensors", model->schema());
  const auto rows = afm::load::random_rows(*model, encoder, kRows, /*seed=*/1);
  const afm::testing::TemporaryFolder folder;
  afm::serve::pack(argv[1], dataset, folder / "packed");
  const auto scorer = afm::serve::Scorer::open(folder / "packed");
  const auto result = afm::load::run_load(scorer, rows, options);
  print(result, options);
  return result.wrong + result.answered_wrongly > 0 || result.refused + result.answered != options.requests;
}
