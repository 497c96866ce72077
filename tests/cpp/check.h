// The little that tests need: named groups of checks, counted, and the line of each that fails.
#ifndef SEARCHKIT_TESTS_CHECK_H
#define SEARCHKIT_TESTS_CHECK_H

#include <cstdio>
#include <string>

#include "error.h"

namespace check {

inline int failures = 0;
inline int made = 0;

inline void that(bool holds, const char *text, const char *file, int line) {
  ++made;
  if (holds) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, text);
}

// The message of the refusal that `action` ends in; empty where it ends in none.
template <typename Action>
std::string refusal(const Action &action) {
  try {
    action();
  } catch (const skr::Failure &failure) {
    return failure.what();
  }
  return {};
}

inline bool contains(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

}  // namespace check

#define CHECK(condition) check::that((condition), #condition, __FILE__, __LINE__)
// That `action` is refused with a message that holds `part`.
#define CHECK_REFUSED(action, part) \
  check::that(check::contains(check::refusal([&] { (void)(action); }), part), #action " refused: " part, __FILE__, __LINE__)

void test_json();
void test_bundle();
void test_gate();
void test_scaling();
void test_tail();

#endif
