// A server's inner loop, without LibTorch: one JSON object of raw values per line of standard input, the probability of
// a click per line of standard output.
//
//   afm pack small.safetensors clicks --out packed.safetensors       (the encoder goes into the model file)
//   score packed.safetensors < requests.jsonl
//
// A line that is no request is answered by an error on standard error, with its number, and the next one is read. Ends
// with how many were answered, and the median time of an answer. Fails when a line was refused.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/serve/scorer.h"

namespace {

double median_of(std::vector<double> values) {
  if (values.empty()) return 0.0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

int run(const char* path) {
  const auto scorer = afm::serve::Scorer::open(path);
  std::vector<double> microseconds;
  long line_number = 0, refused = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++line_number;
    const auto started = std::chrono::steady_clock::now();
    try {
      const float probability = scorer.score_json(line);
      const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - started;
      microseconds.push_back(took.count());
      std::printf("%.6f\n", static_cast<double>(probability));
    } catch (const afm::DataError& error) {
      ++refused;
      std::fprintf(stderr, "line %ld: %s\n", line_number, error.what());
    }
  }
  std::fprintf(stderr, "%zu answered, %ld refused; %.1f microseconds (median)\n", microseconds.size(), refused,
               median_of(microseconds));
  return refused == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: score packed.safetensors < requests.jsonl\n");
    return EXIT_FAILURE;
  }
  try {
    return run(arguments[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return EXIT_FAILURE;
  }
}
