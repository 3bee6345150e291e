#include "benchmarks/load_run.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <random>
#include <string_view>
#include <thread>

#include "libafm/core/error.h"

namespace afm::load {
namespace {

using serve::Scorer;

constexpr std::size_t kMostRows = 16;
constexpr int64_t kTenths = 10;

int64_t resident_bytes() {
  int64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// One thread's requests.
class Client {
 public:
  Client(const Scorer& scorer, const Rows& rows, const LoadOptions& options, uint32_t seed)
      : scorer_(scorer), rows_(rows), options_(options), random_(seed) {}

  void send() {
    const bool spoiled = std::bernoulli_distribution(options_.malformed)(random_);
    const std::size_t count = random_() % 2 == 0 ? 1 : 1 + random_() % kMostRows;
    const std::size_t first = random_() % (static_cast<std::size_t>(rows_.count()) - count + 1);
    result_.malformed += spoiled;
    result_.rows += static_cast<int64_t>(count);
    try {
      random_() % 3 == 0 ? send_text(first, spoiled) : send_ids(first, count, spoiled);
      ++result_.answered;
      result_.answered_wrongly += spoiled;
    } catch (const DataError&) {
      ++result_.refused;
      result_.answered_wrongly += !spoiled;
    }
  }

  const LoadResult& result() const { return result_; }

 private:
  void send_ids(std::size_t first, std::size_t count, bool spoiled) {
    const auto slots = static_cast<std::size_t>(scorer_.slot_count());
    const auto dense = static_cast<std::size_t>(scorer_.dense_count());
    const auto begin = rows_.ids.begin() + static_cast<std::ptrdiff_t>(first * slots);
    ids_.assign(begin, begin + static_cast<std::ptrdiff_t>(count * slots));
    if (spoiled) {
      constexpr std::array<int32_t, 3> kBad = {std::numeric_limits<int32_t>::max(), -2,
                                               std::numeric_limits<int32_t>::min()};
      ids_[random_() % ids_.size()] = kBad[random_() % kBad.size()];
    }
    std::array<float, kMostRows> logits;
    scorer_.score(ids_.data(), rows_.dense.data() + first * dense, static_cast<int64_t>(count), logits.data());
    bool wrong = false;
    for (std::size_t i = 0; i < count; ++i) wrong |= is_wrong(logits[i], rows_.logits[first + i]);
    result_.wrong += wrong;
  }

  void send_text(std::size_t row, bool spoiled) {
    std::string_view text = rows_.texts[row];
    if (spoiled) text = random_() % 2 == 0 ? text.substr(0, random_() % text.size()) : R"({"no such field": 1})";
    const float probability = scorer_.score_json(text);
    // A probability near 0 or 1 says little of its logit: compared as the expected probability.
    const float expected = 1 / (1 + std::exp(-rows_.logits[row]));
    result_.wrong += is_wrong(probability, expected);
  }

  bool is_wrong(float actual, float expected) {
    const double distance = std::abs(static_cast<double>(actual) - expected) / std::max(1.0F, std::abs(expected));
    if (!(distance <= result_.worst)) result_.worst = distance;
    return !(distance <= options_.tolerance);
  }

  const Scorer& scorer_;
  const Rows& rows_;
  const LoadOptions& options_;
  std::mt19937 random_;
  std::vector<int32_t> ids_;
  LoadResult result_;
};

void add(LoadResult& total, const LoadResult& part) {
  total.answered += part.answered;
  total.refused += part.refused;
  total.wrong += part.wrong;
  total.answered_wrongly += part.answered_wrongly;
  total.malformed += part.malformed;
  total.rows += part.rows;
  if (!(part.worst <= total.worst)) total.worst = part.worst;
}

}  // namespace

LoadResult run_load(const Scorer& scorer, const Rows& rows, const LoadOptions& options) {
  std::vector<Client> clients;
  for (int i = 0; i < options.threads; ++i) clients.emplace_back(scorer, rows, options, static_cast<uint32_t>(i));
  std::atomic<int64_t> taken = 0;
  LoadResult total;
  total.memory.resize(kTenths + 1);
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::jthread> threads;
  for (Client& client : clients) {
    threads.emplace_back([&] {
      for (int64_t i = 0; (i = taken++) < options.requests;) {
        if (i * kTenths % options.requests < kTenths) {
          total.memory[static_cast<std::size_t>(i * kTenths / options.requests)] = resident_bytes();
        }
        client.send();
      }
    });
  }
  threads.clear();  // joins
  total.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  total.memory.back() = resident_bytes();
  for (const Client& client : clients) add(total, client.result());
  return total;
}

}  // namespace afm::load
