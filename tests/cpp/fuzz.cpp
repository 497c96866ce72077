// Changes manifest, contract and model of a bundle at random, thousands of times, and reads each result as the library
// does. Whatever is not refused with a `Failure` is a fault: another exception, a crash, or what a sanitizer finds.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "contract.h"
#include "error.h"
#include "json.h"
#include "label_tail.h"
#include "manifest.h"
#include "onnx_gate.h"
#include "sha256.h"

namespace {

using Random = std::mt19937;

std::string content(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::size_t below(Random &random, std::size_t limit) {
  return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random);
}

void change(std::string &text, Random &random) {
  if (text.empty()) return;
  const std::size_t at = below(random, text.size());
  constexpr const char *kPieces[] = {"9999999999", "-1", "\"", "{", "[", "]", "}", "\\ud800", "1e999", "../", "\xff", ",", "null"};
  switch (below(random, 6)) {
    case 0: text[at] = static_cast<char>(below(random, 256)); return;
    case 1: text[at] = static_cast<char>(text[at] ^ (1 << below(random, 8))); return;
    case 2: text.resize(at); return;
    case 3: text.erase(at, 1 + below(random, 16)); return;
    case 4: text.insert(at, text.substr(below(random, text.size()), below(random, 64))); return;
    default: text.insert(at, kPieces[below(random, std::size(kPieces))]);
  }
}

// A manifest that is changed would fail at its seal; so it is sealed again where it can be.
std::string resealed(const std::string &text) {
  const std::size_t at = text.rfind("\"sha256\": \"");
  if (at == std::string::npos || text.size() < at + 11 + 64) return text;
  try {
    std::string result = text;
    result.replace(at + 11, 64, skr::sha256(skr::json::canonical(skr::json::parse(text, "m"), "sha256", "m")));
    return result;
  } catch (const skr::Failure &) {
    return text;
  }
}

struct Counts {
  long refused = 0, passed = 0;
};

template <typename Read>
void attempt(const std::string &original, Random &random, Counts &counts, const Read &read) {
  std::string text = original;
  for (std::size_t i = 0; i <= below(random, 4); ++i) change(text, random);
  try {
    read(text);
    ++counts.passed;
  } catch (const skr::Failure &) {
    ++counts.refused;
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const std::string folder = std::string(argv[1]) + "/";
  const std::string manifest = content(folder + "manifest.json"), contract = content(folder + "contract.json");
  const std::string model = content(folder + "model.onnx");
  skr::read_manifest(manifest, "manifest");
  skr::read_contract(contract, "contract");
  skr::check_onnx(model, "model");
  Random random(1);
  Counts counts[3];
  for (long round = std::atol(argv[2]); round > 0; --round) {
    attempt(manifest, random, counts[0], [](const std::string &text) { skr::read_manifest(resealed(text), "m"); });
    attempt(contract, random, counts[1], [](const std::string &text) { skr::read_contract(text, "c"); });
    attempt(model, random, counts[2], [](const std::string &text) {
      skr::check_onnx(text, "o");
      skr::with_label_head(text, "o");
    });
  }
  for (const Counts &count : counts) std::printf("%ld refused, %ld passed\n", count.refused, count.passed);
  return 0;
}
