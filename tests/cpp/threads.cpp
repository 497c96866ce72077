// One model and many threads: each with a segmenter of its own gets the labels that one thread alone gets; one segmenter
// that two threads share refuses one of them; a model that is closed leaves its segmenters working.

#include <atomic>
#include <cstdio>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "searchkit/runtime.hpp"

namespace {

constexpr int kThreads = 4, kRounds = 6;

using Bytes = std::vector<std::uint8_t>;

Bytes noise(std::int64_t height, std::int64_t width) {
  std::mt19937 random(7);
  Bytes result(static_cast<std::size_t>(height * width * 3));
  for (std::uint8_t &value : result) value = static_cast<std::uint8_t>(random());
  return result;
}

struct Sample {
  std::int64_t height, width;
  Bytes rgb;
  searchkit::Picture view() const { return {rgb.data(), height, width, 3 * width}; }
};

int count_differences(const searchkit::Model &model, const std::vector<Sample> &samples,
                      const std::vector<Bytes> &expected) {
  std::atomic<int> differences{0};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      searchkit::Segmenter segmenter(model);
      for (std::size_t round = 0; round < kRounds; ++round) {
        const std::size_t which = (i + round) % samples.size();
        if (segmenter.run(samples[which].view()) != expected[which]) ++differences;
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  return differences;
}

// Every call ends in labels or in SKR_USAGE.
int count_surprises(const searchkit::Model &model, const Sample &sample, const Bytes &expected) {
  searchkit::Segmenter shared(model);
  std::atomic<int> surprises{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        try {
          if (shared.run(sample.view()) != expected) ++surprises;
        } catch (const searchkit::Error &error) {
          if (error.code() != SKR_USAGE) ++surprises;
        }
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  return surprises;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  searchkit::Options options;
  options.threads = 2;
  std::optional<searchkit::Model> model(std::in_place, argv[1], options);
  const std::int64_t height = model->info().height, width = model->info().width;
  const std::vector<Sample> samples = {{height, width, noise(height, width)}, {50, 70, noise(50, 70)}};
  searchkit::Segmenter alone(*model);
  std::vector<Bytes> expected;
  for (const Sample &sample : samples) expected.push_back(alone.run(sample.view()));
  const int differences = count_differences(*model, samples, expected);
  const int surprises = count_surprises(*model, samples[1], expected[1]);
  model.reset();
  const bool works_on = alone.run(samples[0].view()) == expected[0];
  std::printf("%d differences, %d surprises, works on: %d\n", differences, surprises, works_on);
  return differences == 0 && surprises == 0 && works_on ? 0 : 1;
}
