// JSON as a promise: one document, one meaning, bounded cost. The rules of `searchkit/strict_json.py`, except that
// Unicode's normal form is not looked at: no duplicate keys, NaN, infinities, negative zeros, integers beyond 2^31,
// deep nesting, long or unprintable strings.
#ifndef SKR_SRC_JSON_H
#define SKR_SRC_JSON_H

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace skr::json {

constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
constexpr int kMaxDepth = 32;
constexpr int kMaxValues = 100'000;
constexpr std::size_t kMaxStringBytes = 256;
constexpr std::int64_t kMaxInteger = std::int64_t{1} << 31;

enum class Kind { kNull, kBool, kInteger, kReal, kString, kList, kObject };

struct Value {
  Kind kind = Kind::kNull;
  bool boolean = false;
  std::int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<Value> items;
  std::vector<std::pair<std::string, Value>> members;  // sorted by key, which is the order of code points

  // The member of this name; null where there is none or this is no object.
  const Value *find(std::string_view key) const;
};

// Throws `Failure` (damaged), naming `where`.
Value parse(std::string_view text, std::string_view where);

// The one spelling of a value that digests are taken of: sorted keys, no spaces, ASCII; the members of the outermost
// object named `without` are left out. Throws `Failure` (damaged) for numbers that are no integers, as no manifest holds
// them and their spelling differs between languages.
std::string canonical(const Value &value, std::string_view without, std::string_view where);

}  // namespace skr::json
#endif
