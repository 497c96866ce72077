// How the inside of the library refuses: one exception, which the C interface turns into a code and a message.
#ifndef SKR_SRC_ERROR_H
#define SKR_SRC_ERROR_H

#include <exception>
#include <string>
#include <string_view>

#include "searchkit/runtime.h"

namespace skr {

class Failure : public std::exception {
 public:
  Failure(skr_code code, std::string message) : code_(code), message_(std::move(message)) {}
  skr_code code() const noexcept { return code_; }
  const char *what() const noexcept override { return message_.c_str(); }

 private:
  skr_code code_;
  std::string message_;
};

// A stranger's text for a message: cut, and without bytes that a terminal would act on.
inline std::string shown(std::string_view text) {
  constexpr std::size_t kMost = 80;
  std::string result;
  for (const char c : text.substr(0, kMost)) result += c >= ' ' && c <= '~' ? c : '?';
  return text.size() > kMost ? result + "..." : result;
}

[[noreturn]] inline void fail(skr_code code, const std::string &problem, std::string_view where = {}) {
  throw Failure(code, where.empty() ? problem : shown(where) + ": " + problem);
}

[[noreturn]] inline void damaged(const std::string &problem, std::string_view where = {}) {
  fail(SKR_DAMAGED, problem + "; export the bundle again, or copy it again", where);
}

}  // namespace skr
#endif
